"""Ids, the header, and the ratio, as functions."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from botplatform.bus.jetstream.wire import Headers
from botplatform.core.seam import derive_id, random_id
from botplatform.core.trace_id import trace_id
from botplatform.telemetry.sampling import ALWAYS, FREQUENT, Sampler
from botplatform.telemetry.span_ids import (
    client_id,
    consumer_id,
    parse_traceparent,
    producer_id,
    read_tracestate,
    trace_of,
    traceparent,
)
from botplatform.testing import decision, market, order, signal

MANY = 20_000
IDS: dict[str, Callable[[int], str]] = {
    "derived": lambda number: derive_id("log", "BTCUSDT", number),
    "random": lambda _: random_id(),
}


@pytest.mark.parametrize("kind", IDS)
@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.5])
def test_a_ratio_is_that_share_of_our_ids(kind: str, ratio: float) -> None:
    sampler = Sampler(ratio)
    share = sum(sampler.chain(trace_id(IDS[kind](number))) for number in range(MANY)) / MANY
    assert share == pytest.approx(ratio, abs=4 * (ratio * (1 - ratio) / MANY) ** 0.5)


def test_the_sampler_of_the_sdk_gets_a_tenth_of_uuids_wrong() -> None:
    theirs = TraceIdRatioBased(0.1)
    decided = [theirs.should_sample(None, uuid.uuid4().int, "x").decision for _ in range(2000)]
    taken = decided.count(Decision.RECORD_AND_SAMPLE)
    assert taken == 0
    assert 100 < sum(Sampler(0.1).chain(uuid.uuid4().hex) for _ in range(2000)) < 320


@pytest.mark.parametrize(("ratio", "taken"), [(0.0, 0), (1.0, 500)])
def test_none_is_none_and_all_is_all(ratio: float, taken: int) -> None:
    ids = ["0" * 31 + "1", "f" * 32, *(random_id() for _ in range(498))]
    assert sum(Sampler(ratio).chain(each) for each in ids) == taken


def test_a_smaller_ratio_takes_a_part_of_what_a_larger_one_takes() -> None:
    ids = [random_id() for _ in range(2000)]
    few, more = ({each for each in ids if Sampler(ratio).chain(each)} for ratio in (0.05, 0.2))
    assert few < more


def test_from_the_decision_on_everything_is_always_traced_and_nothing_is_both() -> None:
    assert {"strategy.decision", "order.submitted", "order.unknown", "trading.halted"} <= ALWAYS
    assert not ALWAYS & FREQUENT
    none = Sampler(0.0)
    assert not none.root(market())
    assert not none.root(signal())
    assert none.root(decision())
    assert none.root(order())


@given(st.text(max_size=128))
def test_every_correlation_id_has_a_trace_id(correlation_id: str) -> None:
    found = trace_id(correlation_id)
    assert len(found) == 32
    assert int(found, 16) > 0
    assert trace_id(found) == found


def test_dashes_and_capitals_do_not_count() -> None:
    given_id = uuid.uuid4()
    assert trace_id(str(given_id).upper()) == trace_id(given_id.hex) == given_id.hex


def test_span_ids_are_functions_of_event_group_and_call() -> None:
    event = market()
    ids = [
        producer_id(event.id),
        consumer_id(event.id, "signals"),
        consumer_id(event.id, "storage"),
        client_id(event.id, "submit"),
        client_id(event.id, "cancel", "order"),
    ]
    assert len(set(ids)) == len(ids)
    assert all(len(each) == 16 and int(each, 16) for each in ids)
    assert consumer_id(event.id, "signals") == ids[1]


@pytest.mark.parametrize("sampled", [True, False])
def test_the_header_on_the_wire_says_what_it_was_made_of(sampled: bool) -> None:
    event = market()
    headers = Headers(60)
    headers.traced = {event.id: ""} if sampled else {}
    block = headers.block(event).encode()
    assert parse_traceparent(block) == (trace_of(event), producer_id(event.id), sampled)
    assert b"tracestate" not in block
    assert headers(event)["traceparent"] == traceparent(event, sampled=sampled)


def test_the_state_of_a_trace_of_others_goes_into_the_header() -> None:
    event, headers = market(), Headers(60)
    headers.traced = {event.id: "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"}
    block = headers.block(event).encode()
    assert parse_traceparent(block) == (trace_of(event), producer_id(event.id), True)
    assert read_tracestate(block) == headers(event)["tracestate"] == "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
    assert block.endswith(b"\r\nNats-TTL: 60s\r\n\r\n")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (b"tracestate: a=1", "a=1"),
        (b"Tracestate:a=1 , b@c=2,", "a=1,b@c=2"),
        (b"tracestate: a=1\r\ntracestate: b=2", "a=1,b=2"),
        (b"tracestate: " + b",".join(b"k%d=v" % n for n in range(32)), ",".join(f"k{n}=v" for n in range(32))),
        (b"tracestate: " + b",".join(b"k%d=v" % n for n in range(33)), ""),
        (b"tracestate: a=" + b"x" * 256, "a=" + "x" * 256),
        (b"tracestate: a=" + b"x" * 200 + b",b=" + b"x" * 200 + b",c=" + b"x" * 200, ""),
        (b"tracestate: a=1,B=2", ""),
        (b"tracestate: a=1\x00b", ""),
        (b"tracestate: a=\xff", ""),
        (b"tracestate: a", ""),
        (b"tracestate: ", ""),
        (b"traceparent: 00", ""),
    ],
)
def test_the_state_of_a_trace_is_read_where_it_is_one(given: bytes, read: str) -> None:
    assert read_tracestate(b"NATS/1.0\r\nNats-Msg-Id: 1\r\n" + given + b"\r\n\r\n") == read


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n",
        b"NATS/1.0\r\ntraceparent: \r\n\r\n",
        b"NATS/1.0\r\ntraceparent: 00-" + b"0" * 32 + b"-" + b"1" * 16 + b"-01\r\n\r\n",
        b"NATS/1.0\r\ntraceparent: ff-" + b"1" * 32 + b"-" + b"1" * 16 + b"-01\r\n\r\n",
        b"NATS/1.0\r\ntraceparent: 00-" + b"1" * 32 + b"-" + b"1" * 15,
        b"NATS/1.0\r\ntraceparent: 00-" + b"G" * 32 + b"-" + b"1" * 16 + b"-01\r\n\r\n",
    ],
)
def test_a_wrong_header_is_none(wrong: bytes) -> None:
    assert parse_traceparent(wrong) is None


def test_the_headers_of_others_may_be_written_otherwise() -> None:
    block = b"NATS/1.0\r\nTraceparent: 00-" + b"a" * 32 + b"-" + b"1" * 16 + b"-03\r\n\r\n"
    assert parse_traceparent(block) == ("a" * 32, "1" * 16, True)


@given(st.binary(max_size=200))
def test_any_bytes_can_be_looked_at(data: bytes) -> None:
    parse_traceparent(data)
    parse_traceparent(b"NATS/1.0\r\ntraceparent: " + data)
    state = read_tracestate(b"NATS/1.0\r\ntracestate: " + data)
    assert len(state) <= 512
    assert state.isprintable()
    assert state.isascii()
