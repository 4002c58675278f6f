"""The venue tells what it did for a traced call, under the span of that call, and nothing of any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import pytest

from botplatform.core.calling import CALLING
from botplatform.core.events import Side
from botplatform.errors import DuplicateOrder, OutcomeUnknown
from botplatform.exchanges.exchange import OrderRequest
from botplatform.exchanges.venue_service.protocol import Ask, decode
from botplatform.telemetry.spans import Kind

TRACE, CALL = "a1" * 16, "b2" * 8
REQUEST = OrderRequest(client_order_id="order-1", symbol="BTCUSDT", side=Side.BUY, quantity=Decimal(1))


@contextmanager
def calling(traceparent: str = f"00-{TRACE}-{CALL}-01") -> Iterator[None]:
    token = CALLING.set(traceparent)
    yield
    CALLING.reset(token)


async def test_a_traced_call_is_answered_under_its_span(open_venue: Any) -> None:
    async with open_venue() as served:
        with calling():
            await served.client.submit(REQUEST)
            await served.client.fetch_order("order-1", "BTCUSDT")
            await served.client.fetch_order("order-1", "BTCUSDT")
    assert [span.name for span in served.told] == ["answer submit", "answer order", "answer order"]
    for span in served.told:
        assert (span.service, span.kind, span.trace, span.parent) == ("venue", Kind.SERVER, TRACE, CALL)
        assert 0 < span.start_ns <= span.end_ns
        assert span.attributes["rpc.method"] == span.name.removeprefix("answer ")
        assert span.failure is None
    assert len({span.id for span in served.told} | {CALL}) == 4


async def test_what_no_traced_call_asks_has_no_span(open_venue: Any) -> None:
    async with open_venue() as served:
        await served.client.submit(REQUEST)
        with calling(f"00-{TRACE}-{CALL}-00"):
            await served.client.status()
    assert served.told == []


async def test_a_refusal_is_an_error_of_its_span(open_venue: Any) -> None:
    async with open_venue() as served:
        with calling():
            await served.client.submit(REQUEST)
            with pytest.raises(DuplicateOrder):
                await served.client.submit(REQUEST)
    first, second = served.told
    assert first.failure is None
    assert second.failure.type == "DUPLICATE_ORDER"


async def test_an_answer_that_never_leaves_is_told_by_the_venue(open_venue: Any) -> None:
    async with open_venue(drop_reply_share=1.0, timeout_s=0.3) as served:
        with calling(), pytest.raises(OutcomeUnknown):
            await served.client.submit(REQUEST)
    (span,) = served.told
    assert [note.name for note in span.notes] == ["never answers, as its faults want it"]


@pytest.mark.parametrize(
    "given",
    ["", "00", "x" * 100_000, f"00-{'0' * 32}-{CALL}-01", f"ff-{TRACE}-{CALL}-01", f"00-{TRACE}-{CALL}-01-more"],
    ids=["empty", "short", "long", "no trace", "no version", "more"],
)
async def test_what_is_no_traceparent_is_ignored_and_the_order_is_taken(open_venue: Any, given: str) -> None:
    body = {"client_order_id": "order-1", "symbol": "BTCUSDT", "side": "BUY", "quantity": "1"}
    asked = json.dumps({"request_id": "1", "body": body, "traceparent": given}).encode()
    async with open_venue() as served:
        answer = await served.market.client.request("venue.paper.paper.submit", asked, timeout=10)
        assert json.loads(answer.data) == {"body": None}
        assert (await served.client.audit()).orders == 1
    assert served.told == []


def test_requests_of_clients_that_know_nothing_of_traces_are_read_as_before() -> None:
    assert decode(b'{"request_id":"1","body":{}}', Ask).traceparent == ""
