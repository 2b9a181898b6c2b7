"""Ranges of what a manifest and a parity sample say. Each check returns its value, or raises ValueError with the place.

A number out of its range would not fail: it would be served. A certificate with a negative alpha covers every target,
and no score reaches a threshold that is not a number.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from math import inf
from pathlib import PurePath

from router import chat_form
from router.answer_keys import KINDS
from router.domain import BudgetLadder, Certificate, Prompt
from router.stopping.rules import AgreeRule, LearnedRule, StoppingCertificate, StoppingRule, ThresholdRule

MOST_RUNGS, MOST_CERTIFICATES, LONGEST_LINE = 64, 1_000, 512
MAX_WIRE_COUNT = 2**31 - 1
"""Largest count, of tokens or prompts, that the API can carry."""

HIGHEST_PRICE = 1_000_000
"""Largest threshold of a relative certificate, in P(correct) per token."""

LOWEST_LOGPROB = -1_000
"""Least threshold of a log-probability."""

FIRST_YEAR, LAST_YEAR = 2000, 2199
DIGEST = r"^[0-9a-f]{64}$"


def ladder(value: BudgetLadder) -> BudgetLadder:
    """Rungs with distinct names and ascending caps; rungs without a cap come last."""
    if not 1 <= len(value.rungs) <= MOST_RUNGS:
        raise ValueError(f"rungs: must be 1 to {MOST_RUNGS}, {_counted(len(value.rungs), 'no rungs')}")
    for i, rung in enumerate(value.rungs):
        line(rung.name, f"rungs.{i}.name: ")
        if rung.tokens is not None:
            _within(f"rungs.{i}.tokens", rung.tokens, 0, MAX_WIRE_COUNT)
    if len({rung.name for rung in value.rungs}) < len(value.rungs):
        raise ValueError("rungs: two have the same name")
    caps = [inf if rung.tokens is None else rung.tokens for rung in value.rungs]
    for i, (cap, following) in enumerate(pairwise(caps)):
        if cap > following or cap == following < inf:
            raise ValueError(f"rungs.{i + 1}.tokens: caps must ascend, {following} follows {cap}")
    return value


def relative(certificates: tuple[Certificate, ...]) -> tuple[Certificate, ...]:
    """Certificates for relative targets, whose thresholds are prices of tokens."""
    return _certificates(certificates, 0, HIGHEST_PRICE)


def per_prompt(certificates: tuple[Certificate, ...]) -> tuple[Certificate, ...]:
    """Certificates for relative targets per prompt: no loss above alpha may be predicted for any of them."""
    for i, one in enumerate(_certificates(certificates, -1, 1)):
        _within(f"{i}.threshold", one.threshold, -1, one.alpha)
    return certificates


def absolute(certificates: tuple[Certificate, ...]) -> tuple[Certificate, ...]:
    """Certificates for absolute targets, whose thresholds are P(correct)."""
    return _certificates(certificates, 0, 1)


def stopping(certificates: tuple[StoppingCertificate, ...]) -> tuple[StoppingCertificate, ...]:
    """Certificates of rules that stop within the thought."""
    _promises(certificates)
    for i, one in enumerate(certificates):
        _rule(f"{i}.rule", one.rule)
        _within(f"{i}.thinking_tokens", one.thinking_tokens, 0, MAX_WIRE_COUNT)
        _within(f"{i}.probe_tokens", one.probe_tokens, 0, MAX_WIRE_COUNT)
    return certificates


def answers(kind: str) -> str:
    """The name of a kind of answer keys."""
    if kind not in KINDS:
        raise ValueError(f"answers: {kind[:40]!r} is none of {', '.join(KINDS)}")
    return kind


def _rule(place: str, rule: StoppingRule) -> None:
    _within(f"{place}.first", rule.first, 0, MOST_RUNGS)
    match rule:
        case AgreeRule():
            _within(f"{place}.matches", rule.matches, 1, MOST_RUNGS)
        case ThresholdRule():
            _within(f"{place}.least_logprob", rule.least_logprob, LOWEST_LOGPROB, 0)
        case LearnedRule():
            _within(f"{place}.price", rule.price, 0, HIGHEST_PRICE)


def file_names(files: dict[str, str]) -> dict[str, str]:
    """Names of files in the bundle's own folder."""
    for name in files:
        if name in ("", ".", "..") or PurePath(name).name != name or not name.isprintable():
            raise ValueError(f"{name!r} is not the name of a file in the bundle's folder")
    return files


def line(value: str, place: str = "") -> str:
    """A name that is not empty and fits into a line of a log."""
    if not value.strip() or not value.isprintable() or len(value) > LONGEST_LINE:
        raise ValueError(f"{place}must be 1 to {LONGEST_LINE} printable characters, is {value[:20]!r}")
    return value


def moment(value: datetime) -> datetime:
    """A time of day with its zone, in a year that a calendar of computers has."""
    if value.tzinfo is None or not FIRST_YEAR <= value.year <= LAST_YEAR:
        raise ValueError(f"must be a time with its zone, {FIRST_YEAR}..{LAST_YEAR}, is {value.isoformat()}")
    return value


def probabilities(rows: list[list[float]]) -> list[list[float]]:
    """P(correct) by prompt and rung."""
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            _within(f"{i}.{j}", value, 0, 1)
    return rows


def _certificates(certificates: tuple[Certificate, ...], lowest: float, highest: float) -> tuple[Certificate, ...]:
    _promises(certificates)
    for i, one in enumerate(certificates):
        _within(f"{i}.threshold", one.threshold, lowest, highest)
        _within(f"{i}.tie", one.tie, 0, 1)
    return certificates


def _promises(certificates: Sequence[Certificate | StoppingCertificate]) -> None:
    """The ranges of what every certificate says."""
    if len(certificates) > MOST_CERTIFICATES:
        raise ValueError(f"at most {MOST_CERTIFICATES}, {_counted(len(certificates), 'none')}")
    for i, one in enumerate(certificates):
        _within(f"{i}.alpha", one.alpha, 0, 1)
        _within(f"{i}.prompts", one.prompts, 1, MAX_WIRE_COUNT)
        if not 0 < one.delta < 1:
            raise ValueError(f"{i}.delta: must lie between 0 and 1, is {str(one.delta)[:20]}")
    if len({one.alpha for one in certificates}) < len(certificates):
        raise ValueError("two have the same alpha")


def _within(place: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # NaN lies nowhere
        raise ValueError(f"{place}: must lie in {low}..{high}, is {str(value)[:20]}")


def _counted(number: int, none: str) -> str:
    return f"there are {number}" if number else f"there are {none}"


def prompts(value: object) -> list[Prompt]:
    """Prompts, each a text or a list of messages in the form of the OpenAI chat API."""
    if not isinstance(value, list):
        raise ValueError("must be a list of prompts")
    return [Prompt.of(one) if isinstance(one, str) else chat_form.from_list(one) for one in value]
