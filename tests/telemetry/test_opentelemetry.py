"""Traces: a span per call that belongs to the caller's trace, and headers for whoever is asked."""

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from router.events import CallCompleted, Decided, Degraded, Generated, RequestShed, StreamAborted
from router.telemetry.opentelemetry import Traces
from tests.support.fakes import TENANT, completion_of, decision_of, request_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET = "the patient is called Rosencrantz"


def test_a_call_is_a_span_of_its_callers_trace() -> None:
    kept = InMemorySpanExporter()
    traces = Traces(kept)
    with traces.span("Generate", {"traceparent": f"00-{TRACE}-{SPAN}-01"}) as onward:
        traces(Decided(TENANT, decision_of(), 0.001))
        traces(Degraded("cache", "down"))
        traces(Generated(request_of(SECRET), decision_of(), completion_of(thinking_tokens=9), 0.02, 0.5))
        traces(CallCompleted("Generate", "OK"))
    with traces.span("Decide", {}) as alone:
        traces(RequestShed("a", "queue"))
        traces(StreamAborted(request_of(SECRET), decision_of(), "backend"))
        traces(CallCompleted("Decide", "UNAVAILABLE"))
    traces.close()
    first, second = kept.get_finished_spans()
    assert (first.name, first.kind, second.name) == ("Generate", SpanKind.SERVER, "Decide")
    assert first.context is not None and first.parent is not None and second.parent is None
    assert f"{first.context.trace_id:032x}" == TRACE and f"{first.parent.span_id:016x}" == SPAN
    assert onward["traceparent"] == f"00-{TRACE}-{first.context.span_id:016x}-01"
    assert TRACE not in alone["traceparent"]
    assert first.attributes is not None
    assert first.attributes["budget_router.rung"] == "128" and first.attributes["budget_router.thinking_tokens"] == 9
    assert first.status.status_code is StatusCode.UNSET and second.status.status_code is StatusCode.ERROR
    assert [event.name for event in (*first.events, *second.events)] == ["decided", "degraded", "shed", "broken"]
    assert SECRET not in first.to_json() + second.to_json()
