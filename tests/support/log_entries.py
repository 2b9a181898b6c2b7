"""Entries for outcome logs, some of which no log can hold."""

from dataclasses import replace
from math import nan

from router.domain import Completion, Decision
from router.ports import OutcomeLog
from tests.support.fakes import RISING, completion_of, decision_of, request_of

HALF = "\ud83d"
"""Half a surrogate pair, as an engine may put it into its version."""

Entry = tuple[str, Decision, Completion | None]

UNWRITABLE: list[Entry] = [
    ("count", decision_of("bad"), completion_of(thinking_tokens=2**63)),
    ("negative count", decision_of("bad"), completion_of(thinking_tokens=-(2**63) - 1)),
    ("immense count", decision_of("bad"), completion_of(thinking_tokens=10**5000)),
    ("id", decision_of(HALF), None),
    ("version", replace(decision_of("bad"), model_version=HALF), None),
    ("fingerprint", replace(decision_of("bad"), backend=f"vllm/{HALF}"), None),
    ("reason", replace(decision_of("bad"), choice=replace(decision_of().choice, reason=HALF)), None),
    ("propensity", replace(decision_of("bad"), propensities=(0, 0, 0, 0, nan, 0)), None),
    ("quality", decision_of("bad", score=replace(RISING, quality=(nan,) * 6)), None),
    ("forecast", decision_of("bad", score=replace(RISING, p99=(float("inf"),) * 6)), None),
]
"""Entries with one value that no log can hold; the name says which."""


async def recorded_among_others(log: OutcomeLog, entry: Entry) -> None:
    """Record an entry between those of the decisions a to d."""
    for name in "ab":
        log.record(request_of(), decision_of(name), None)
    _, decision, completion = entry
    log.record(request_of(), decision, completion)
    for name in "cd":
        log.record(request_of(), decision_of(name), None)
