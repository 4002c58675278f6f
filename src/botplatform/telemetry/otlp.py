"""From spans of ours to a collector, by the exporters of OpenTelemetry: the one module that imports it all."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Message
from opentelemetry.sdk.environment_variables import OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED as _COUNTED
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event as SpanEvent
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from botplatform.errors import MissingExtra
from botplatform.telemetry.attributes import attributes_of
from botplatform.telemetry.otlp_messages import encode_request, message_of
from botplatform.telemetry.spans import Span

__all__ = ["OtelSender", "make_exporter", "to_readable"]

PREFIX: Final = "botplatform-"
TIMEOUT_S: Final = 5.0
_CLIENT: Final = "_OTLPHTTPClient"
_KINDS: Final = {kind.name: kind for kind in SpanKind}
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_OK: Final = Status(StatusCode.UNSET)
_SCOPE: Final = InstrumentationScope("botplatform", version("botplatform"))


class OtelSender:
    """Hands spans to exporters, one resource for each engine: encoded where an exporter takes that, else as the SDK's."""

    def __init__(
        self, exporters: Sequence[SpanExporter], *, system: str, instance: str, alone: bool, name: str = ""
    ) -> None:
        """Take the exporters; `name` is what `OTEL_SERVICE_NAME` says, `alone` that there is but one engine here."""
        self._exporters = exporters
        self._posts = [_post(exporter) for exporter in exporters]
        self._system = system
        self._name = name
        self._alone = alone
        self._closed = False
        self._resources: dict[str, Resource] = {}
        self._origins: dict[str, ResourceSpans] = {}
        # Found out here, as the process starts: it takes long, and the first spans are sent while engines work.
        self._given = OTELResourceDetector().detect()
        ours = Resource({"service.instance.id": instance, "service.version": version("botplatform")})
        self._default = Resource.create().merge(ours)

    def send(self, spans: Sequence[Span]) -> bool:
        """Send spans; tell whether every exporter took them."""
        if self._closed:
            return False
        request = self._encode(spans) if any(self._posts) else b""
        made = [] if all(self._posts) else self._readable(spans)
        results = [
            exporter.export(made) is SpanExportResult.SUCCESS if post is None else post(request)
            for exporter, post in zip(self._exporters, self._posts, strict=True)
        ]
        return all(results)

    def close(self) -> None:
        """End the exporters."""
        self._closed = True
        for exporter in self._exporters:
            exporter.shutdown()

    def _readable(self, spans: Sequence[Span]) -> list[ReadableSpan]:
        return [to_readable(span, self._resource(span.service), self._system) for span in spans]

    def _encode(self, spans: Sequence[Span]) -> bytes:
        by_service: dict[str, list[Message]] = {}
        for span in spans:
            made = by_service.get(span.service)
            if made is None:
                made = by_service[span.service] = []
                if span.service not in self._origins:
                    plain = to_readable(span, self._resource(span.service), self._system)
                    self._origins[span.service] = _origin_of(plain)
            made.append(message_of(span, self._system))
        return encode_request((self._origins[service], made) for service, made in by_service.items())

    def _resource(self, service: str) -> Resource:
        found = self._resources.get(service)
        if found is None:
            name = self._name or str(self._given.attributes.get("service.name", ""))
            named = name if name and self._alone else f"{name}-{service}" if name else PREFIX + service
            found = self._default.merge(self._given).merge(Resource({"service.name": named}))
            self._resources[service] = found
        return found


def _origin_of(span: ReadableSpan) -> ResourceSpans:
    """Return the resource and the scope of a span as the SDK writes them."""
    (made,) = encode_spans([span]).resource_spans
    del made.scope_spans[0].spans[:]
    return made


def _post(exporter: SpanExporter) -> Callable[[bytes], bool] | None:
    """Return what sends encoded spans as an exporter does; None for one that has to be given those of the SDK.

    That is the part of the exporter over HTTP below its encoder: address, headers, certificates, compression, time
    limit and repetitions are its own. One that is made otherwise, or that is to count what it sends, gets the SDK's.
    """
    client: Any = getattr(exporter, "_client", None)
    if type(client).__name__ != _CLIENT or os.environ.get(_COUNTED, "").strip().lower() == "true":
        return None

    def post(request: bytes) -> bool:
        return bool(client.export(request).success)

    return post


def to_readable(span: Span, resource: Resource, system: str) -> ReadableSpan:
    """Make a finished span of the SDK."""
    trace = int(span.trace, 16)
    return ReadableSpan(
        name=span.name,
        context=_context(trace, span.id, span.state),
        parent=_context(trace, span.parent) if span.parent else None,
        resource=resource,
        attributes=attributes_of(span, system),
        events=[SpanEvent(note.name, dict(note.attributes), note.at_ns) for note in span.notes],
        links=[Link(_context(int(link.trace, 16), link.span)) for link in span.links],
        kind=_KINDS[span.kind.value],
        status=_OK if span.failure is None else Status(StatusCode.ERROR, span.failure.text or span.failure.type),
        start_time=span.start_ns,
        end_time=max(span.start_ns, span.end_ns),
        instrumentation_scope=_SCOPE,
    )


def _context(trace: int, span: str, state: str = "") -> SpanContext:
    given = TraceState.from_header([state]) if state else None
    return SpanContext(trace, int(span, 16), is_remote=False, trace_flags=_SAMPLED, trace_state=given)


def make_exporter(kind: str, protocol: str, endpoint: str, environ: Mapping[str, str]) -> SpanExporter:
    """Make the exporter of a kind (`otlp`, `console`); what is not given it takes from the `OTEL_…` variables.

    Raises `MissingExtra` for gRPC without the extra `otlp-grpc`.
    """
    if kind == "console":
        return ConsoleSpanExporter()
    given: dict[str, Any] = {}
    if not any(environ.get(f"OTEL_EXPORTER_OTLP_{each}TIMEOUT") for each in ("", "TRACES_")):
        given["timeout"] = TIMEOUT_S
    if protocol == "grpc":
        if endpoint:
            given |= {"endpoint": endpoint, "insecure": not endpoint.startswith("https")}
        return _grpc(given)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # only then

    _quiet("opentelemetry.exporter.otlp")
    if endpoint:
        given["endpoint"] = endpoint if endpoint.endswith("/v1/traces") else f"{endpoint.rstrip('/')}/v1/traces"
    return OTLPSpanExporter(**given)


def _grpc(given: dict[str, Any]) -> SpanExporter:
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415  # an extra
            OTLPSpanExporter,
        )
    except ImportError as e:
        raise MissingExtra("traces over gRPC need the extra otlp-grpc: pip install 'botplatform[otlp-grpc]'") from e
    _quiet("opentelemetry.exporter.otlp")
    made: SpanExporter = OTLPSpanExporter(**given)
    return made


def _quiet(name: str) -> None:
    """Silence an exporter about each attempt that fails: what is lost is told once, in one line."""
    logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    logging.getLogger("opentelemetry.sdk").setLevel(logging.ERROR)
