from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from botplatform import testing
from botplatform.bus.jetstream.wire import Headers, decode, encode, trace_id, traceparent
from botplatform.core.events import Event
from botplatform.errors import InvalidEvent
from botplatform.testing.generators import events, tokens


def test_a_correlation_id_of_32_hex_digits_is_the_trace_id() -> None:
    assert trace_id("0af7651916cd43dd8448eb211c80319c") == "0af7651916cd43dd8448eb211c80319c"
    assert trace_id("0AF76519-16CD-43DD-8448-EB211C80319C") == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("other", ["chain-7", "0" * 32, "0af7651916cd43dd8448eb211c80319", "ü"])
def test_any_other_correlation_id_is_hashed(other: str) -> None:
    assert trace_id(other) == hashlib.sha256(other.encode()).hexdigest()[:32]


@given(correlation_id=st.text(min_size=1, max_size=128), event_id=tokens)
def test_the_header_is_always_well_formed(correlation_id: str, event_id: str) -> None:
    event = testing.market(correlation_id=correlation_id, id=event_id)
    version, trace, span, flags = traceparent(event).split("-")
    assert (version, flags) == ("00", "00")
    for part, digits in ((trace, 32), (span, 16)):
        assert len(part) == digits
        assert int(part, 16) > 0


@pytest.mark.parametrize(
    ("event", "kept"),
    [
        (testing.market(), "90s"),
        (testing.signal(), "90s"),
        (testing.decision(), "never"),
        (testing.order("order.filled"), "never"),
    ],
)
def test_ticks_are_kept_for_a_while_and_the_rest_for_ever(event: Event, kept: str) -> None:
    assert Headers(tick_ttl_s=90)(event)["Nats-TTL"] == kept


@given(events())
def test_every_event_survives_the_wire(event: Event) -> None:
    assert decode(encode(event), event.type) == event


@pytest.mark.parametrize("body", [b'{"type": "order.filled"}', b"[]"])
def test_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidEvent, match=r"JSON body on order\.filled.*protobuf"):
        decode(body, "order.filled")


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused_or_an_event(body: bytes) -> None:
    with pytest.raises(InvalidEvent):
        decode(body, "order.filled")


def test_a_body_of_another_type_than_its_subject_is_refused() -> None:
    with pytest.raises(InvalidEvent, match=r"is a order\.filled, but was published as market\.snapshot"):
        decode(encode(testing.order("order.filled")), "market.snapshot")
