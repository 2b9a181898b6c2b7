"""The rows of the outcome log: a decision, its generation and its outcome, as flat rows of plain values."""

import hmac
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any

import orjson
from pydantic import TypeAdapter

from router import chat_form
from router.domain import (
    BudgetLadder,
    Certificate,
    Checkpoint,
    Choice,
    Completion,
    Decision,
    DecisionSource,
    Escalation,
    LoggedDecision,
    MaxLoss,
    Message,
    MinQuality,
    Outcome,
    Prompt,
    QualityTarget,
    ReasoningBudget,
    Role,
    RouteRequest,
    Rule,
    Score,
)
from router.errors import OutcomeLogError
from router.stopping.evidence import Evidence
from router.stopping.rules import StoppingCertificate

FIELDS = (
    "decision_id", "decided_at", "tenant", "prompt_id", "prompt", "messages", "conversation", "model", "backend",
    "model_version", "ladder", "rung", "rung_order", "budget_tokens", "target", "source", "reason",
    "meets_target", "certificate", "propensity", "propensities", "score", "completed_at", "finish",
    "enforcement", "served_rung", "attempts", "prompt_tokens", "thinking_tokens", "answer_tokens", "correct",
    "label_source", "reported_at", "relaxed", "rule", "stopping", "probe_tokens", "checkpoints", "escalation",
    "truncated_characters",
)  # fmt: skip
"""All columns of a row; a partial row holds some of them."""

PER_PROMPT = "max_loss_per_prompt"
"""The column `target` of a relative target that each prompt's own forecast must meet."""

COLUMNS = ("quality", "mean", "p50", "p90", "p99")
"""Columns of a score."""

_STOPPING = TypeAdapter(StoppingCertificate)

INT64 = 2**63

ENTRY_CHARACTERS = 4_096
"""Characters of a request for which an entry counts as one more while it waits."""

PART_CHARACTERS = 256
"""Characters for which a message, a tool call or an image counts beside its texts: objects take memory, too."""

Value = str | float | int | None
Row = dict[str, Value]


class UnwritableRowError(ValueError):
    """A row holds a value that no log can hold; the message names the column."""


@dataclass(frozen=True)
class PromptHasher:
    """Names prompts in the log by a keyed hash.

    Attributes:
        secret: key of the hash.
        texts: keep the prompts themselves as well. Nothing can be retrained from a log without them.
    """

    secret: bytes
    texts: bool

    def row(self, tenant: str, prompt: Prompt) -> Row:
        """The columns of a prompt: its hash; if `texts` its text, and the JSON of its messages if it has several."""
        named: Row = {"prompt_id": self._name(tenant, chat_form.canonical(prompt)), "prompt": None, "messages": None}
        return named | {"prompt": prompt.text, "messages": chat_form.to_json(prompt)} if self.texts else named

    def tenant(self, tenant: str) -> str:
        """The hash of a tenant."""
        return self._name(tenant, "tenant")

    def conversation(self, tenant: str, conversation: str | None) -> str | None:
        """The hash of a tenant's conversation id; None where there is none."""
        return None if conversation is None else self._name(tenant, f"conversation {conversation}")

    def _name(self, tenant: str, what: str) -> str:
        # The tenant is part of the hash, so that the log does not show which tenants ask the same.
        named = self._begun.copy()
        named.update(f"{tenant}\0{what}".encode())
        return named.hexdigest()[:32]

    @cached_property
    def _begun(self) -> hmac.HMAC:
        """A hash that has taken in the key."""
        return hmac.new(self.secret, digestmod="sha256")


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A decision, or the end of its generation when `completion` is there; `at` is the time of it."""

    at: datetime
    request: RouteRequest
    decision: Decision
    completion: Completion | None

    @classmethod
    def now(cls, request: RouteRequest, decision: Decision, completion: Completion | None) -> "LogEntry":
        """An entry of this moment."""
        return cls(datetime.now(UTC), request, decision, completion)

    def owner(self) -> str:
        """The tenant whose entry it is."""
        return self.request.tenant

    def weight(self) -> int:
        """How many usual entries it takes the memory of: the request is kept until the entry is written."""
        characters = sum(
            map(_characters, self.request.prompt.messages), len(self.request.options.conversation_id or "")
        )
        return 1 + characters // ENTRY_CHARACTERS

    def row(self, names: PromptHasher) -> Row:
        """The entry as a partial row. It takes a while, so the writer calls it, outside the path of the request.

        Raises:
            UnwritableRowError: a number is not finite or beyond 64 bits, or a text has half a surrogate.
        """
        if self.completion is None:
            return _decided(self.at, self.request, self.decision, names)
        return _checked(_completed(self.completion) | {"completed_at": self.at.isoformat()})


def _checked(row: Row) -> Row:
    """The row itself, which any log can hold. Raises UnwritableRowError."""
    for name, value in row.items():
        if value is None or (type(value) is str and value.isascii()):  # nearly all values, in few steps
            continue
        if isinstance(value, str) and not _is_text(value):
            raise UnwritableRowError(f"{name}: half a surrogate")
        if isinstance(value, int) and not -INT64 <= value < INT64:
            raise UnwritableRowError(f"{name}: beyond 64 bits")
        if isinstance(value, float) and not math.isfinite(value):
            raise UnwritableRowError(f"{name}: not finite")
        if not isinstance(value, str | int | float | None):
            raise UnwritableRowError(f"{name}: {type(value).__name__}")
    return row


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _characters(message: Message) -> int:
    """Characters of all texts of a message, and of what holds them."""
    characters = PART_CHARACTERS + len(message.content) + len(message.reasoning) + len(message.tool_call_id)
    if not (message.images or message.parts or message.tool_calls):
        return characters
    texts = [*message.images, *(part for part in message.parts if isinstance(part, str))]
    for call in message.tool_calls:
        texts += call.id, call.name, call.arguments
    parts = len(message.images) + len(message.tool_calls) + len(message.parts)
    return characters + sum(map(len, texts)) + PART_CHARACTERS * parts


def _decided(at: datetime, request: RouteRequest, decision: Decision, names: PromptHasher) -> Row:
    """The columns of a decision: all that off-policy estimation and training need. Raises UnwritableRowError."""
    own: Row = {
        "decision_id": decision.id,
        "decided_at": at.isoformat(),
        "tenant": request.tenant,
        **names.row(request.tenant, request.prompt),
        "conversation": names.conversation(request.tenant, request.options.conversation_id),
        "reason": decision.choice.reason,
        "truncated_characters": decision.truncated_characters,
        "score": None if decision.score is None else _scored(decision.score),
    }
    choice = decision.choice
    shared = _shared(
        decision.model,
        decision.backend,
        decision.model_version,
        decision.ladder,
        choice.index,
        choice.meets_target,
        choice.certificate,
        choice.stopping,
        decision.target,
        decision.source,
        decision.target_relaxation,
        decision.escalation,
        decision.rule,
        decision.propensities,
        decision.propensity,
    )
    return _checked(own) | shared


@lru_cache(1024)
def _shared(
    model: str,
    backend: str,
    model_version: str,
    ladder: BudgetLadder,
    index: int,
    meets_target: bool,
    certificate: Certificate | None,
    stopping: StoppingCertificate | None,
    target: QualityTarget,
    source: DecisionSource,
    relaxed: float,
    escalation: Escalation | None,
    rule: Rule,
    propensities: tuple[float, ...],
    propensity: float,
) -> Row:
    """The columns that many decisions share. Raises UnwritableRowError."""
    rung = ladder.rungs[index]
    return _checked(
        {
            "model": model,
            "backend": backend,
            "model_version": model_version,
            "ladder": _json([[each.name, each.tokens] for each in ladder.rungs]),
            "rung": rung.name,
            "rung_order": index,
            "budget_tokens": rung.tokens,
            "target": f"{_kind(target)}={target.value:g}",
            "source": source.value,
            "relaxed": relaxed,
            "rule": rule.value,
            "escalation": None if escalation is None else escalation.value,
            "stopping": None if stopping is None else _json(stopping),
            "meets_target": int(meets_target),
            "certificate": None if certificate is None else _json(certificate),
            "propensity": propensity,
            "propensities": _json(propensities),
        }
    )


def _kind(target: QualityTarget) -> str:
    if isinstance(target, MaxLoss):
        return PER_PROMPT if target.per_prompt else "max_loss"
    return "min_quality"


def _scored(score: Score) -> str:
    data = _json(score)
    # JSON has no NaN, and null means that a figure is not known, which a quality always is. Mostly there is none.
    if "null" in data and not all(n is None or math.isfinite(n) for name in COLUMNS for n in getattr(score, name)):
        raise UnwritableRowError("score: not finite")
    return data


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


@contextmanager
def _naming_what_is_wrong() -> Iterator[None]:
    """A row that cannot be read, because something else wrote it, is an OutcomeLogError."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise OutcomeLogError(f"the row of this decision cannot be read: {type(error).__name__}") from error


def restored(row: Row) -> LoggedDecision:
    """The decision of a row.

    Raises:
        OutcomeLogError: the row cannot be read, or an earlier version wrote it, and kept too little.
    """
    with _naming_what_is_wrong():
        return _restored(row)


def _restored(row: Row) -> LoggedDecision:
    if row["ladder"] is None or row["propensities"] is None or row["rung_order"] is None:
        raise OutcomeLogError("an earlier version wrote this decision, and kept too little")
    kind, _, value = str(row["target"]).partition("=")
    certificate = None if row["certificate"] is None else Certificate(**json.loads(str(row["certificate"])))
    ladder = BudgetLadder(tuple(ReasoningBudget(name, tokens) for name, tokens in json.loads(str(row["ladder"]))))
    choice = Choice(int(row["rung_order"]), bool(row["meets_target"]), certificate, str(row["reason"]))
    if row.get("stopping") is not None:
        rule = _STOPPING.validate_json(str(row["stopping"]))
        choice = replace(choice, stopping=rule, checkpoints=rule.checkpoints(len(ladder)))
    decision = Decision(
        str(row["decision_id"]),
        str(row["model"]),
        str(row["backend"]),
        ladder,
        choice,
        MinQuality(float(value)) if kind == "min_quality" else MaxLoss(float(value), kind == PER_PROMPT),
        DecisionSource(row["source"]),
        str(row["model_version"]),
        None if row["score"] is None else _score(json.loads(str(row["score"]))),
        tuple(json.loads(str(row["propensities"]))),
        float(row.get("relaxed") or 0),
        Escalation(row["escalation"]) if row.get("escalation") else None,
        int(row.get("truncated_characters") or 0),
    )
    seen = json.loads(str(row.get("checkpoints") or "[]"))
    return LoggedDecision(str(row["tenant"]), decision, _prompt(row), tuple(_checkpoint(**one) for one in seen))


def prompt_of(row: Row) -> Prompt | None:
    """What a row asks; None where the log keeps no texts. Raises OutcomeLogError where it cannot be read."""
    with _naming_what_is_wrong():
        return _prompt(row)


def _prompt(row: Row) -> Prompt | None:
    if row["messages"] is not None:
        turns = json.loads(str(row["messages"]))
        if all(isinstance(turn, list) for turn in turns):  # as earlier versions wrote them
            return Prompt(tuple(Message(Role(role), text) for role, text in turns))
        return chat_form.from_list(turns)
    return None if row["prompt"] is None else Prompt.of(str(row["prompt"]))


def _score(columns: dict[str, Any]) -> Score:
    if "tokens" not in columns:
        return Score(*(tuple(columns[name]) for name in COLUMNS), far=bool(columns.get("far")))
    rungs = [one or dict.fromkeys(COLUMNS) for one in columns["tokens"]]  # as earlier versions wrote it
    return Score(tuple(columns["quality"]), *(tuple(rung[name] for rung in rungs) for name in COLUMNS[1:]))


def _completed(completion: Completion) -> Row:
    """The columns of the end of a generation."""
    return {
        "finish": completion.finish.value,
        "enforcement": completion.enforcement.value,
        "served_rung": completion.budget.name,
        "attempts": completion.attempts,
        "prompt_tokens": completion.prompt_tokens,
        "thinking_tokens": completion.thinking_tokens,
        "answer_tokens": completion.answer_tokens,
        "probe_tokens": completion.probe_tokens,
        "checkpoints": _json([_looked(one) for one in completion.checkpoints]) if completion.checkpoints else None,
    }


def _looked(checkpoint: Checkpoint) -> dict[str, Value]:
    """What a rule has seen at a rung, without the answer: that is the model's text, which the log does not keep."""
    evidence = asdict(checkpoint.evidence)
    del evidence["key"]
    return {"rung": checkpoint.rung, "probe_tokens": checkpoint.probe_tokens, "stops": checkpoint.stops, **evidence}


def _checkpoint(rung: str, probe_tokens: int, stops: bool, **evidence: Any) -> Checkpoint:
    return Checkpoint(rung, "", probe_tokens, Evidence(None, **evidence), stops)


def reported(outcome: Outcome) -> Row:
    """The columns of an outcome, reported at this moment."""
    now = datetime.now(UTC).isoformat()
    return {"reported_at": now, "correct": outcome.correct, "label_source": outcome.label_source.value}
