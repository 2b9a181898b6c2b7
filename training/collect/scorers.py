"""Scorers grade an answer against a reference: one function per way of checking, by name.

The packages behind them are imported on first use, because an import takes seconds.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from router.answer_keys import answer_key, last_number

MATH_SECONDS = 5
"""Time limit of math-verify for one expression, and for one comparison."""

NEARLY = 1e-6
"""Relative error within which numbers that are not whole count as equal."""


@dataclass(frozen=True)
class Grade:
    """The result of scoring one answer.

    Attributes:
        correct: 0..1.
        parsed: False if nothing in the answer could be compared.
    """

    correct: float
    parsed: bool = True


UNPARSED = Grade(0.0, parsed=False)

Scorer = Callable[[str, str, Mapping[str, Any]], Grade]
"""(answer, reference, metadata of the prompt) -> grade."""


def exact(answer: str, reference: str, _: Mapping[str, Any]) -> Grade:
    """Equality of texts up to case and spacing; an empty answer is unparsed."""
    return _equal(answer, reference, "text")


def choice(answer: str, reference: str, _: Mapping[str, Any]) -> Grade:
    """Equality of the letters that are chosen, A to J.

    Raises:
        ValueError: the reference names no letter.
    """
    if answer_key(reference, "choice") is None:
        raise ValueError("the reference names no letter from A to J")
    return _equal(answer, reference, "choice")


def numeric(answer: str, reference: str, metadata: Mapping[str, Any]) -> Grade:
    """Equality of the last numbers in answer and reference.

    A whole reference must be met exactly, any other to within NEARLY; `metadata["tolerance"]` (relative) replaces both.

    Raises:
        ValueError: the reference holds no number.
    """
    given, wanted = last_number(answer), last_number(reference)
    if wanted is None:
        raise ValueError("the reference holds no number")
    if given is None:
        return UNPARSED
    # Exact fractions: .1 + .2 must equal .3, and a large integer must not be rounded to its neighbour.
    tolerance = metadata.get("tolerance", 0 if wanted.denominator == 1 else NEARLY)
    return Grade(float(abs(given - wanted) <= Fraction(tolerance) * abs(wanted)))


def math(answer: str, reference: str, _: Mapping[str, Any]) -> Grade:
    """Equality of mathematical expressions, LaTeX or plain, by math-verify.

    There is no time limit outside the main thread, because math-verify's limit needs signals.
    """
    from math_verify import parse, verify

    seconds = MATH_SECONDS if threading.current_thread() is threading.main_thread() else None
    given = parse(answer, parsing_timeout=seconds)
    if not given:
        return UNPARSED
    # A bare reference such as \frac{1}{2} parses as mathematics only between dollar signs.
    wanted = parse(reference, parsing_timeout=seconds) or parse(f"${reference}$", parsing_timeout=seconds)
    return Grade(float(verify(wanted, given, timeout_seconds=seconds)))


def gym(answer: str, _: str, metadata: Mapping[str, Any]) -> Grade:
    """The verdict of reasoning-gym's own verifier for data set `metadata["dataset"]` and item `metadata["entry"]`."""
    from training.pocket.gym import is_right

    name, entry = metadata["dataset"], metadata["entry"]
    if not answer.strip():
        return UNPARSED
    try:
        return Grade(float(is_right(name, answer, entry)))
    except Exception:  # some verifiers raise on answers that they cannot read
        return UNPARSED


SCORERS: Mapping[str, Scorer] = {
    "exact": exact, "numeric": numeric, "math": math, "choice": choice, "reasoning-gym": gym,
}  # fmt: skip


KEYS: Mapping[str, str] = {
    "exact": "text", "numeric": "numeric", "math": "math", "choice": "choice", "reasoning-gym": "verbatim",
}  # fmt: skip
"""The kind of key whose equals a scorer grades alike, by name of the scorer."""


def _equal(answer: str, reference: str, kind: str) -> Grade:
    given = answer_key(answer, kind)
    return UNPARSED if given is None else Grade(float(given == answer_key(reference, kind)))
