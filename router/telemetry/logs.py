"""Log lines: one JSON line a record. Prompt text never appears."""

import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from router.domain import Completion, Decision
from router.events import (
    Audited,
    CallCompleted,
    Decided,
    Degraded,
    EngineBack,
    EngineLost,
    Generated,
    Record,
    RecordsLost,
    RequestShed,
    Shadowed,
    StreamAborted,
    Swapped,
    TaskFailed,
    Taught,
)
from router.ports import Observer
from router.telemetry.log_writer import Defer, Fields, LogWriter

LOGGED_CODES = ("UNAUTHENTICATED", "PERMISSION_DENIED", "UNKNOWN", "INTERNAL")
"""Calls that end so get a line; the answers to a flood are only counted."""


def configure_logging() -> LogWriter:
    """Make structlog write JSON lines on standard output; the caller closes the writer at the end."""
    writer = LogWriter(sys.stdout)
    structlog.configure(
        logger_factory=lambda *_: writer,
        processors=[
            structlog.processors.add_log_level,
            _stamped,
            # A traceback's local variables would include prompts.
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            _unrendered,
        ],
        cache_logger_on_first_use=True,
    )
    return writer


def _stamped(logger: Any, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Add the timestamp: `at` where the line is about an earlier moment, else now."""
    event["timestamp"] = event.pop("at", None) or datetime.now(UTC)
    return event


def _unrendered(logger: Any, method: str, event: Mapping[str, Any]) -> tuple[tuple[Mapping[str, Any]], dict[str, Any]]:
    """Pass the fields on as they are: the writer renders them in its thread."""
    return (event,), {}


class Observers:
    """Passes every record to several observers. One that fails costs its own record: neither others nor the caller."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def __call__(self, record: Record) -> None:
        for observer in self._observers:
            try:
                observer(record)
            except Exception as error:
                structlog.get_logger().error("observer failed", record=type(record).__name__, exc_info=error)


class LogLines:
    """Writes one line per record, off the path of the request.

    Args:
        defer: builds and writes a line a moment later, as `LogWriter.defer` does. Nothing that waits holds a prompt.
    """

    def __init__(self, defer: Defer) -> None:
        self._defer = defer

    def __call__(self, record: Record) -> None:
        match record:
            case Decided(tenant, decision, seconds):
                self._later("info", "decided", partial(_decided, tenant, decision, seconds))
            case CallCompleted(method, code) if code in LOGGED_CODES:
                self._later("warning", "refused", {"method": method, "code": code})
            case CallCompleted() | RequestShed():
                pass  # a flood must not become one of lines
            case Generated(request, decision, completion, first_token, seconds):
                build = partial(_generated, request.tenant, decision.id, completion, first_token, seconds)
                self._later("info", "generated", build)
            case StreamAborted(request, decision, cause):
                fields = {"tenant": request.tenant, "decision_id": decision.id, "cause": cause}
                self._later("warning", "broken", fields)
            case Audited(model, alpha, loss, wealth, alarmed):
                seen = {"model": model, "alpha": alpha, "loss": loss, "wealth": round(wealth, 3), "alarmed": alarmed}
                self._later("error" if alarmed else "info", "audited", seen)
            case Shadowed(model, version, prompts, failed, agreement, saved):
                counts = {"prompts": prompts, "failed": failed}
                shares = {"agreement": round(agreement, 3), "saved": round(saved, 3)}
                self._later("info", "shadowed", {"model": model, "candidate": version[:12], **counts, **shares})
            case Taught(model, decision_id, outcome, tokens):
                lesson = {"model": model, "decision_id": decision_id, "outcome": outcome, "tokens": tokens}
                self._later("info", "lesson", lesson)
            case Swapped(model, before, after):
                self._later("info", "swapped", {"model": model, "before": before[:12], "after": after[:12]})
            case Degraded(dependency, error):
                self._later("warning", "degraded", {"dependency": dependency, "error": error})
            case EngineLost(engine, error):
                self._later("error", "engine lost", {"engine": engine, "error": error})
            case EngineBack(engine):
                self._later("info", "engine back", {"engine": engine})
            case RecordsLost(cause, records, error):
                self._later("error", "records lost", {"cause": cause, "records": records, "error": error})
            case TaskFailed(task, error):  # by structlog, which renders tracebacks
                log = structlog.get_logger().error
                self._defer(partial(log, "task failed", task=task, exc_info=error, at=datetime.now(UTC)))

    def _later(self, level: str, event: str, fields: Fields | Callable[[], Fields]) -> None:
        """Build and write a line in the writer's thread; it carries the time of now."""
        self._defer(partial(_line, level, event, fields, datetime.now(UTC)))


def _line(level: str, event: str, fields: Fields | Callable[[], Fields], at: datetime) -> Fields:
    return {"timestamp": at, "level": level, "event": event, **(fields() if callable(fields) else fields)}


def _decided(tenant: str, decision: Decision, seconds: float) -> Fields:
    return {"tenant": tenant, **_of_decision(decision), "milliseconds": round(seconds * 1000, 3)}


def _generated(tenant: str, decision_id: str, completion: Completion, first_token: float, seconds: float) -> Fields:
    return {
        "tenant": tenant,
        "decision_id": decision_id,
        **_of_completion(completion),
        "first_token_milliseconds": round(first_token * 1000, 3),
        "milliseconds": round(seconds * 1000, 3),
    }


def _of_decision(decision: Decision) -> dict[str, object]:
    return {
        "decision_id": decision.id,
        "model": decision.model,
        "rung": decision.rung.name,
        "relaxed": decision.target_relaxation,
        "source": decision.source.value,
        "rule": decision.rule.value,
        "predicted_quality": decision.predicted_quality,
        "meets_target": decision.choice.meets_target,
        "certified": decision.choice.certificate is not None,
        "reason": decision.choice.reason,
        "model_version": decision.model_version[:12],
        "truncated_characters": decision.truncated_characters,
    }


def _of_completion(completion: Completion) -> dict[str, object]:
    return {
        "finish": completion.finish.value,
        "budget": completion.budget.name,
        "thinking_tokens": completion.thinking_tokens,
        "answer_tokens": completion.answer_tokens,
        "probe_tokens": completion.probe_tokens,
        "enforcement": completion.enforcement.value,
        "budget_violated": completion.budget_violated,
        "count_source": completion.count_source.value,
        "reported_thinking_tokens": completion.reported_thinking_tokens,
        "counts_disagree": completion.counts_disagree,
        "attempts": completion.attempts,
    }
