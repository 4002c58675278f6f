"""Sending spans to a collector over gRPC, asked for by the setting and by the standard variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from botplatform.core.seam import SystemClock, random_id
from botplatform.settings_tracing import TracingSettings
from botplatform.telemetry.setup_tracing import open_tracing
from botplatform.telemetry.span_ids import trace_of
from botplatform.telemetry.spans import Failure, Kind, Span
from botplatform.testing import order

WHY = "spans over gRPC need the extra otlp-grpc: pip install 'botplatform[otlp-grpc]'"
pytest.importorskip("opentelemetry.exporter.otlp.proto.grpc", reason=WHY)
grpc: Any = pytest.importorskip("grpc", reason=WHY)
service: Any = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc", reason=WHY)
messages: Any = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2", reason=WHY)


class Collector:
    """A receiver of OTLP over gRPC that keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], Any]] = []
        self.server = grpc.server(ThreadPoolExecutor(2))
        service.add_TraceServiceServicer_to_server(self, self.server)
        self.url = f"http://127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  # as the protocol calls it
        self.requests.append((dict(context.invocation_metadata()), request))
        return messages.ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.stop(None).wait()


@pytest.mark.parametrize("asked_by", ["setting", "variable", "variable for traces"])
def test_a_span_arrives_over_grpc(collector: Collector, monkeypatch: pytest.MonkeyPatch, asked_by: str) -> None:
    settings: dict[str, Any] = {"endpoint": collector.url, "protocol": "grpc"} if asked_by == "setting" else {}
    environ: Mapping[str, str] = {
        "setting": {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
        "variable": {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url},
        "variable for traces": {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.url,
        },
    }[asked_by] | {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)  # the exporter itself looks there
    traces = open_tracing(
        TracingSettings(flush_s=0.05, stop_within_s=5, **settings),
        environ,
        SystemClock(),
        engines=("execution",),
        running=("execution",),
        instance="i-1",
    )
    assert traces is not None
    event = order("order.filled")
    span = random_id()[:16]
    failure = Failure("ValueError", "wrong")
    traces.queue.put(
        Span(
            *("execution", "process order.filled", Kind.CONSUMER, trace_of(event), span, "", 10, 20),
            *(event, {}, (), (), failure),
        )
    )
    traces.close()
    assert (traces.queue.sent, traces.queue.dropped) == (1, 0)
    ((metadata, request),) = collector.requests
    assert metadata["authorization"] == "Bearer abc"
    (resource,) = request.resource_spans
    names = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert names["service.name"] == "botplatform-execution"
    (made,) = resource.scope_spans[0].spans
    assert (made.trace_id.hex(), made.span_id.hex(), made.status.message) == (trace_of(event), span, "wrong")


def test_a_collector_that_is_gone_holds_nobody_up_over_grpc_either(collector: Collector) -> None:
    collector.server.stop(None).wait()
    clock = SystemClock()
    traces = open_tracing(
        TracingSettings(endpoint=collector.url, protocol="grpc", flush_s=0.05, stop_within_s=0.3),
        {},
        clock,
        engines=("execution",),
        running=("execution",),
        instance="i-1",
    )
    assert traces is not None
    event = order("order.filled")
    given = Span("execution", "x", Kind.CONSUMER, trace_of(event), random_id()[:16], "", 10, 20, event)
    traces.queue.put(given)
    traces.close()
    assert traces.queue.sent == 0
    traces.queue._thread.join(10)
    assert traces.queue.dropped == 1
