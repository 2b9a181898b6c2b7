"""Traces by OpenTelemetry: a span per call, with the decision as its attributes; a thread sends them in batches."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from router.events import CallCompleted, Decided, Degraded, Generated, Record, RequestShed, StreamAborted

FINE = ("OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNAUTHENTICATED", "PERMISSION_DENIED")
"""Statuses that do not count as failures of this service (OpenTelemetry's conventions for RPC)."""


def exporter(endpoint: str) -> SpanExporter:
    """Sends spans to a collector (OTLP over gRPC) at `endpoint`, such as http://127.0.0.1:4317."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"))


class Traces:
    """A tracer, and an observer that annotates the span of the current call. Prompts appear nowhere."""

    def __init__(self, to: SpanExporter) -> None:
        self._provider = TracerProvider(resource=Resource({SERVICE_NAME: "budget-router"}))
        self._provider.add_span_processor(BatchSpanProcessor(to))
        self._tracer = self._provider.get_tracer("budget_router")
        self._headers = TraceContextTextMapPropagator()

    @contextmanager
    def span(self, method: str, headers: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
        """A span around a call, child of the caller's span; yields the headers for requests made within it."""
        parent = self._headers.extract(headers)
        # An exception's text may quote a prompt; how the call ended comes with CallCompleted.
        with self._tracer.start_as_current_span(
            method, parent, SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ):
            onward: dict[str, str] = {}
            self._headers.inject(onward)
            yield onward

    def __call__(self, record: Record) -> None:
        # Outside a call, as in a background task, this is a span that records nothing.
        span = trace.get_current_span()
        match record:
            case Decided(tenant, decision, seconds):
                source, rung = decision.source.value, decision.rung.name
                fields = {"tenant": tenant, "model": decision.model, "rung": rung, "source": source}
                span.set_attributes({f"budget_router.{name}": value for name, value in fields.items()})
                span.add_event("decided", {"seconds": seconds})
            case Generated(_, _, completion, first_token, _):
                span.set_attribute("budget_router.thinking_tokens", completion.thinking_tokens or 0)
                span.set_attribute("budget_router.first_token_seconds", first_token)
            case StreamAborted(_, _, cause):
                span.add_event("broken", {"cause": cause})
            case RequestShed(_, cause):
                span.add_event("shed", {"cause": cause})
            case Degraded(dependency, _):
                span.add_event("degraded", {"dependency": dependency})
            case CallCompleted(_, code):
                span.set_attribute("rpc.grpc.status", code)
                span.set_status(StatusCode.UNSET if code in FINE else StatusCode.ERROR)

    def close(self) -> None:
        """Send the waiting spans, and stop."""
        self._provider.shutdown()
