"""Spans as they go to a collector: the same, whether written here or by the SDK."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from botplatform.telemetry.otlp import OtelSender, make_exporter, to_readable
from botplatform.telemetry.otlp_messages import encode_request, message_of
from botplatform.telemetry.spans import Failure, Kind, Link, Note, Span
from botplatform.testing import market, order, signal

hexes = st.text("0123456789abcdef", min_size=16, max_size=16).filter(lambda text: int(text, 16) > 0)
times = st.integers(0, 2**63 - 1)
texts = st.text(max_size=300)
values = st.one_of(texts, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False))
attributes = st.dictionaries(st.text(min_size=1, max_size=40), values, max_size=5)
notes = st.builds(Note, texts, times, attributes)
links = st.builds(Link, st.builds(str.__add__, hexes, hexes), hexes)
TICK = market()
spans = st.builds(
    Span,
    st.sampled_from(["signals", "strategy"]),
    texts,
    st.sampled_from(Kind),
    st.builds(str.__add__, hexes, hexes),
    hexes,
    st.one_of(st.just(""), hexes),
    times,
    times,
    st.sampled_from([None, TICK, signal(cause=TICK), order("order.filled", correlation_id="bot 7")]),
    attributes,
    st.lists(notes, max_size=2).map(tuple),
    st.lists(links, max_size=2).map(tuple),
    st.one_of(st.none(), st.builds(Failure, st.text(min_size=1), texts)),
    st.sampled_from(["", "vendor=1", "a=1,b=2"]),
)


@given(st.lists(spans, min_size=1, max_size=4))
def test_what_is_written_is_what_the_sdk_makes_of_the_same_spans(made: list[Span]) -> None:
    resource = Resource({"service.name": "x", "process.pid": 7}, "https://example.org/schema")
    theirs = encode_spans([to_readable(span, resource, "nats") for span in made])
    (group,) = theirs.resource_spans
    ours = encode_request([(group, [message_of(span, "nats") for span in made])])
    assert ExportTraceServiceRequest.FromString(ours) == theirs


def test_half_a_character_loses_no_batch() -> None:
    made = Span("signals", "x\ud800", Kind.INTERNAL, "1" * 32, "2" * 16, "", 1, 2, None, {"a": "b\ud800"})
    origin = ResourceSpans(scope_spans=[ScopeSpans()])
    request = encode_request([(origin, [message_of(made, "nats")])])
    (found,) = ExportTraceServiceRequest.FromString(request).resource_spans[0].scope_spans[0].spans
    assert (found.name, found.attributes[0].value.string_value) == ("x?", "b?")


@pytest.mark.parametrize(
    ("kind", "environ", "written_here"),
    [
        ("otlp", {}, True),
        ("otlp", {"OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true"}, False),
        ("console", {}, False),
    ],
)
def test_the_exporter_over_http_is_given_bytes_and_the_others_spans_of_the_sdk(
    monkeypatch: pytest.MonkeyPatch, kind: str, environ: dict[str, str], *, written_here: bool
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    exporter = make_exporter(kind, "http/protobuf", "http://127.0.0.1:1", {})
    sender = OtelSender([exporter], system="nats", instance="i", alone=True)
    assert (sender._posts[0] is not None) is written_here
    sender.close()


def test_two_exporters_get_the_same_spans() -> None:
    sent: list[bytes] = []
    told = io.StringIO()
    http = make_exporter("otlp", "http/protobuf", "http://127.0.0.1:1", {})
    sender = OtelSender([http, ConsoleSpanExporter(out=told)], system="nats", instance="i", alone=True)

    def post(request: bytes) -> bool:
        sent.append(request)
        return True

    sender._posts[0] = post
    made = Span("signals", "only one", Kind.INTERNAL, "1" * 32, "2" * 16, "", 1, 2)
    assert sender.send([made])
    sender.close()
    (found,) = ExportTraceServiceRequest.FromString(sent[0]).resource_spans
    assert found.scope_spans[0].spans[0].name == "only one"
    assert "only one" in told.getvalue()
    assert not sender.send([made])
