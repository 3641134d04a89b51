"""Traces of requests, for OpenTelemetry: off unless `TORPOR_TRACING` is set, and then at no cost.

Needs the packages of the extra `tracing`. Where spans go is told by the SDK's own variables (`OTEL_EXPORTER_…`).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

HEADER = b"traceparent"
Headers = list[tuple[bytes, bytes]]

_tracer: Any = None  # of opentelemetry, once there is one


class Trace:
    """One span and what belongs under it. This one records nothing, for when tracing is off."""

    def __bool__(self) -> bool:
        return False

    def passed_on(self, headers: Headers) -> Headers:
        """Return headers with which whoever serves the request goes on with the trace."""
        return headers

    def begin(self, name: str) -> "Trace":
        """Begin a span under this one; it must be ended."""
        return self

    def tell(self, name: str, began: datetime, ended: datetime) -> "Trace":
        """Record a span under this one that is over."""
        return self

    def fail(self, error: str) -> None:
        """Note that it failed, and why."""

    def end(self) -> None:
        """End the span; once is enough."""


NO_TRACE = Trace()


class Recorded(Trace):
    """A span that is recorded."""

    def __init__(self, tracer: Any, span: Any) -> None:
        self._tracer = tracer
        self._span = span

    def __bool__(self) -> bool:
        return True

    def passed_on(self, headers: Headers) -> Headers:
        """Return the headers with this span as the parent of what follows."""
        context = self._span.get_span_context()
        ours = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        return [*((name, value) for name, value in headers if name != HEADER), (HEADER, ours.encode())]

    def begin(self, name: str) -> Trace:
        """Begin a span under this one."""
        return Recorded(self._tracer, self._tracer.start_span(name, context=self._context()))

    def tell(self, name: str, began: datetime, ended: datetime) -> Trace:
        """Record a span under this one that is over."""
        span = self._tracer.start_span(name, context=self._context(), start_time=_ns(began))
        span.end(_ns(ended))
        return Recorded(self._tracer, span)

    def fail(self, error: str) -> None:
        """Note that it failed, and why, unless it is over."""
        if self._span.is_recording():
            self._span.set_attribute("error.type", error)

    def end(self) -> None:
        """End the span."""
        if self._span.is_recording():
            self._span.end()

    def _context(self) -> Any:
        from opentelemetry.trace import set_span_in_context

        return set_span_in_context(self._span)


def begin(name: str, parent: bytes | None, attributes: Sequence[tuple[str, str]] = ()) -> Trace:
    """Begin a request's trace, or go on with that of its `traceparent` header; `NO_TRACE` if tracing is off."""
    if not settings.ENV.tracing:
        return NO_TRACE
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier = {"traceparent": parent.decode("latin-1")} if parent else {}
    context = TraceContextTextMapPropagator().extract(carrier)
    tracer = _get_tracer()
    return Recorded(tracer, tracer.start_span(name, context=context, attributes=dict(attributes)))


def use(provider: Any) -> None:
    """Record by this provider of tracers; None: by one made as configured, when it is needed."""
    global _tracer
    _tracer = None if provider is None else provider.get_tracer("torpor")


def _get_tracer() -> Any:
    if _tracer is None:
        use(_make_provider())
    return _tracer


def _make_provider() -> Any:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ImproperlyConfigured(f"TORPOR_TRACING: install torpor[tracing] ({error})") from None
    provider = TracerProvider(resource=Resource.create({"service.name": "torpor"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _ns(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1_000
