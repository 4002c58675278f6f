"""Sending spans: to a collector over HTTP, to one that is dead, slow or full, and to none."""

from __future__ import annotations

import http.server
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from botplatform.core.seam import SystemClock, random_id
from botplatform.errors import SettingsError
from botplatform.settings_tracing import TracingSettings
from botplatform.telemetry.export import SpanQueue
from botplatform.telemetry.setup_tracing import OpenTracing, dropped_spans, open_tracing
from botplatform.telemetry.span_ids import trace_of
from botplatform.telemetry.spans import Failure, Kind, Link, Note, Span
from botplatform.testing import order

ENGINES = ("strategy", "execution", "storage")


def span(service: str = "execution", **more: Any) -> Span:
    event = order("order.filled", correlation_id="bot 7")
    given: dict[str, Any] = {"event": event, "attributes": {"botplatform.partition": 3}} | more
    return Span(service, "process order.filled", Kind.CONSUMER, trace_of(event), random_id()[:16], "", 10, 20, **given)


class Collector:
    """A collector that keeps what it is sent, or refuses it."""

    def __init__(self) -> None:
        self.requests: list[tuple[Mapping[str, str], ExportTraceServiceRequest]] = []
        self.status = 200
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path == "/v1/traces":
                    collector.requests.append((dict(self.headers), ExportTraceServiceRequest.FromString(body)))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()

    def services(self) -> set[str]:
        return {resource["service.name"] for resource, _ in self.found()}

    def found(self) -> list[tuple[dict[str, Any], Any]]:
        return [
            ({each.key: each.value.string_value for each in group.resource.attributes}, made)
            for _, request in self.requests
            for group in request.resource_spans
            for scope in group.scope_spans
            for made in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()
    made.thread.join()


def opened(environ: Mapping[str, str] = {}, running: Sequence[str] = ENGINES, **settings: Any) -> OpenTracing | None:
    given = TracingSettings(**{"flush_s": 0.05, "stop_within_s": 1, **settings})
    return open_tracing(given, environ, SystemClock(), engines=ENGINES, running=running, instance="i-1")


def sent(collector: Collector, *spans: Span, environ: Mapping[str, str] = {}, running: Sequence[str] = ENGINES) -> None:
    traces = opened(environ, running, endpoint=collector.url, stop_within_s=10)
    assert traces is not None
    for each in spans:
        traces.queue.put(each)
    traces.close()
    assert traces.queue.sent == len(spans)


def test_a_span_arrives_with_everything_that_it_is_about(collector: Collector) -> None:
    note, link = Note("dead letter", 15, {"botplatform.dead_letter": "x"}), Link("a" * 32, "b" * 16)
    given = span(notes=(note,), links=(link,), failure=Failure("ValueError", "wrong"))
    sent(collector, given)
    ((resource, made),) = collector.found()
    assert resource["service.name"] == "botplatform-execution"
    assert resource["service.instance.id"] == "i-1"
    assert resource["service.version"]
    assert (made.trace_id.hex(), made.span_id.hex(), made.parent_span_id) == (given.trace, given.id, b"")
    assert (made.start_time_unix_nano, made.end_time_unix_nano) == (10, 20)
    attributes = {each.key: each.value for each in made.attributes}
    assert attributes["messaging.system"].string_value == "nats"
    assert attributes["messaging.operation.name"].string_value == "process"
    assert attributes["messaging.destination.name"].string_value == "order.filled.3.BTCUSDT"
    assert attributes["botplatform.correlation_id"].string_value == "bot 7"
    assert attributes["botplatform.partition"].int_value == 3
    assert attributes["error.type"].string_value == "ValueError"
    assert (made.status.code, made.status.message) == (2, "wrong")
    assert [each.name for each in made.events] == ["dead letter"]
    assert [each.span_id.hex() for each in made.links] == ["b" * 16]


def test_each_engine_of_a_process_is_a_service_of_its_own(collector: Collector) -> None:
    sent(collector, *(span(name) for name in ENGINES))
    assert collector.services() == {"botplatform-strategy", "botplatform-execution", "botplatform-storage"}


@pytest.mark.parametrize(("running", "name"), [(("execution",), "mine"), (ENGINES, "mine-execution")])
def test_the_name_that_the_variables_give_counts(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, running: Sequence[str], name: str
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.instance.id=pod-3")
    sent(collector, span(), environ={"OTEL_SERVICE_NAME": "mine"}, running=running)
    ((resource, _),) = collector.found()
    assert resource["service.name"] == name
    assert (resource["deployment.environment.name"], resource["service.instance.id"]) == ("test", "pod-3")


def test_the_standard_variables_for_the_exporter_count(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
    traces = opened({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    assert traces is not None
    traces.queue.put(span())
    traces.close()
    assert collector.requests[0][0]["authorization"] == "Bearer abc"


@pytest.mark.parametrize(
    ("environ", "settings", "on"),
    [
        ({}, {}, False),
        ({}, {"enabled": True}, True),
        ({}, {"endpoint": "http://127.0.0.1:1"}, True),
        ({}, {"endpoint": "http://127.0.0.1:1", "enabled": False}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, {}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, {}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, {}, True),
        ({"OTEL_TRACES_EXPORTER": "none"}, {"endpoint": "http://127.0.0.1:1"}, False),
        ({"OTEL_SDK_DISABLED": "true"}, {"enabled": True}, False),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, {"enabled": True}, False),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, {"endpoint": "http://127.0.0.1:1"}, True),
    ],
)
def test_tracing_is_on_where_somebody_asked_for_it(
    environ: dict[str, str], settings: dict[str, Any], *, on: bool
) -> None:
    traces = opened(environ, **settings)
    assert (traces is not None) is on
    if traces is not None:
        traces.close()


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_TRACES_EXPORTER": "zipkin"},
        {"OTEL_TRACES_SAMPLER_ARG": "a tenth"},
        {"OTEL_TRACES_SAMPLER_ARG": "2"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
    ],
)
def test_a_variable_that_makes_no_sense_is_refused(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=next(iter(environ)).removesuffix("_ARG")):
        opened(environ, enabled=True)


@pytest.mark.parametrize(
    ("environ", "settings", "share"),
    [
        ({}, {}, 0.01),
        ({"OTEL_TRACES_SAMPLER_ARG": "0.5"}, {}, 0.5),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_on"}, {}, 1.0),
        ({"OTEL_TRACES_SAMPLER_ARG": "0.5"}, {"ratio": 0.2}, 0.2),
    ],
)
def test_the_share_of_ticks_is_that_of_the_settings_or_the_variables(
    environ: dict[str, str], settings: dict[str, Any], share: float
) -> None:
    traces = opened(environ, enabled=True, **settings)
    assert traces is not None
    below, above = f"{round(share * 2**56) - 1:032x}", f"{round(share * 2**56):032x}"
    assert traces.tracing.is_sampled_chain(below)
    assert traces.tracing.is_sampled_chain(above) is (share == 1.0)
    traces.close()


def test_a_dead_collector_is_told_once_in_one_line_and_holds_nobody_up(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    before = dropped_spans()
    traces = opened(endpoint=collector.url)
    assert traces is not None
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            traces.queue.put(span())
            traces.flush()
        traces.close()
    assert dropped_spans() - before == 3
    assert [record.getMessage() for record in caplog.records if "collector did not take" in record.getMessage()]
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is None


class Stuck:
    """A sender that never comes back until it is closed."""

    def __init__(self) -> None:
        self.begun, self.closed = threading.Event(), threading.Event()

    def send(self, _: Sequence[Span]) -> bool:
        self.begun.set()
        self.closed.wait(30)
        return False

    def close(self) -> None:
        self.closed.set()


def test_a_collector_that_hangs_fills_the_queue_and_the_rest_is_dropped_and_counted() -> None:
    stuck = Stuck()
    queue = SpanQueue(lambda: stuck, limit=100, flush_s=0.01)
    queue.put(span())
    assert stuck.begun.wait(10)
    for _ in range(150):
        queue.put(span())
    assert (queue.waiting, queue.dropped) == (100, 50)
    queue.close(0.05)
    assert stuck.closed.is_set()
    queue._thread.join(10)
    assert queue.dropped == 151
    assert queue.sent == 0


class Broken:
    """A sender that raises."""

    def send(self, _: Sequence[Span]) -> bool:
        raise ValueError("cannot encode")

    def close(self) -> None:
        """Do nothing."""


def test_a_sender_that_raises_loses_spans_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    queue = SpanQueue(Broken, limit=100, flush_s=0.01)
    queue.put(span())
    assert queue.flush(10)
    queue.close(10)
    assert queue.dropped == 1
    assert "cannot encode" in caplog.text


def test_an_ended_queue_takes_nothing_more() -> None:
    queue = SpanQueue(Broken, limit=100, flush_s=0.01)
    queue.close(10)
    queue.put(span())
    assert (queue.waiting, queue.dropped) == (0, 1)
