from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import OrderStatus, OrderType, Side
from botplatform.errors import ExchangeError, OutcomeUnknown, RequestExpired
from botplatform.exchanges.exchange import ExchangeReport, OrderRequest
from botplatform.exchanges.remote_paper import RemotePaperExchange
from botplatform.exchanges.venue_service.protocol import Numbered, Refusal, Reply, Status, encode
from botplatform.settings import NatsSettings


def buy(name: str = "order-1", **fields: Any) -> OrderRequest:
    known: dict[str, Any] = {"symbol": "BTCUSDT", "side": Side.BUY, "quantity": Decimal(1)}
    return OrderRequest(client_order_id=name, **(known | fields))


def report(n: int, symbol: str = "BTCUSDT") -> ExchangeReport:
    return ExchangeReport(
        client_order_id=f"order-{n}",
        symbol=symbol,
        status=OrderStatus.ACCEPTED,
        venue_order_id=str(n),
        version=1,
        timestamp_ns=n,
        side=Side.BUY,
        quantity=Decimal(1),
    )


async def until(true: Any) -> None:
    async with asyncio.timeout(60):
        while True:
            if true():
                return
            await asyncio.sleep(0.005)


@pytest.fixture
async def wire(nats_server: EmbeddedServer) -> AsyncIterator[Connection]:
    async with await connect_nats(NatsSettings(url=nats_server.url)) as connection:
        yield connection


def client_at(server: EmbeddedServer, **options: Any) -> RemotePaperExchange:
    async def dial() -> Connection:
        return await connect_nats(NatsSettings(url=server.url))

    known: dict[str, Any] = {"account_id": "fake", "dial": dial, "timeout_s": 0.3, "poll_s": 60.0}
    return RemotePaperExchange(**(known | options))


class FakeVenue:
    """Answers what the test says: a venue may say anything."""

    def __init__(self, wire: Connection) -> None:
        self.wire = wire
        self.answers: dict[str, bytes | None] = {}
        self.asked: list[str] = []
        self.say("status", Status("paper", "fake", "book-1", 0, 1, {}))

    def say(self, verb: str, body: object) -> None:
        self.answers[verb] = b'{"body":' + encode(body) + b"}"

    async def open(self) -> None:
        await self.wire.client.subscribe("venue.paper.fake.*", cb=self._answer)
        await self.wire.client.flush()

    async def push(self, n: int, symbol: str = "BTCUSDT") -> None:
        await self.wire.client.publish("venue.paper.fake.reports.X", encode(Numbered(n, report(n, symbol))))

    async def _answer(self, message: Any) -> None:
        verb = message.subject.rpartition(".")[2]
        self.asked.append(verb)
        answer = self.answers.get(verb)
        if answer is not None:
            await message.respond(answer)


@pytest.fixture
async def fake(wire: Connection) -> FakeVenue:
    venue = FakeVenue(wire)
    await venue.open()
    return venue


async def test_without_a_venue_it_does_not_connect(nats_server: EmbeddedServer) -> None:
    client = client_at(nats_server)
    with pytest.raises(ExchangeError, match=r"is `botplatform venue` running\?"):
        await client.connect(print)
    assert not client.connected


async def test_it_connects_to_a_venue_that_starts_a_moment_later(nats_server: EmbeddedServer, wire: Connection) -> None:
    client = client_at(nats_server, timeout_s=30.0)
    connecting = asyncio.create_task(client.connect(print))
    await asyncio.sleep(0.3)
    assert not connecting.done()
    venue = FakeVenue(wire)
    await venue.open()
    await connecting
    assert client.connected
    await client.close()


async def test_without_a_server_it_does_not_connect() -> None:
    async def dial() -> Connection:
        return await connect_nats(NatsSettings(url="nats://127.0.0.1:1", connect_timeout_s=0.5))

    with pytest.raises(ExchangeError, match="cannot be reached"):
        await RemotePaperExchange(account_id="fake", dial=dial).connect(print)


async def test_an_answer_that_does_not_come_leaves_the_outcome_unknown(
    nats_server: EmbeddedServer, fake: FakeVenue
) -> None:
    client = client_at(nats_server)
    await client.connect(print)
    for call in (
        client.submit(buy()),
        client.cancel("order-1", "BTCUSDT"),
        client.fetch_order("order-1", "BTCUSDT"),
        client.fetch_positions(),
    ):
        with pytest.raises(OutcomeUnknown, match="did not answer"):
            await call
    await client.close()


@pytest.mark.parametrize("answer", [b"", b"{", b'{"body":7}', b"\xff", b'{"refusal":{"code":"NEW","text":""}}'])
async def test_an_answer_that_cannot_be_read_leaves_the_outcome_unknown(
    nats_server: EmbeddedServer, fake: FakeVenue, answer: bytes
) -> None:
    client = client_at(nats_server)
    await client.connect(print)
    fake.answers["submit"] = answer
    with pytest.raises(OutcomeUnknown, match="cannot be read"):
        await client.submit(buy())
    await client.close()


async def test_a_refusal_that_the_venue_states_is_no_unknown_outcome(
    nats_server: EmbeddedServer, fake: FakeVenue
) -> None:
    client = client_at(nats_server)
    await client.connect(print)
    for code, kind in (("EXPIRED", RequestExpired), ("UNKNOWN_SYMBOL", ExchangeError)):
        fake.answers["submit"] = encode(Reply(Refusal(code, "because")))  # type: ignore[arg-type]
        with pytest.raises(kind, match=f"{code}: because") as raised:
            await client.submit(buy())
        assert not isinstance(raised.value, OutcomeUnknown)
    await client.close()


async def test_once_the_venue_is_gone_nothing_is_sent_and_it_is_said_so(
    nats_server: EmbeddedServer, fake: FakeVenue
) -> None:
    client = client_at(nats_server)
    await client.connect(print)
    await fake.wire.close()
    async with asyncio.timeout(60):
        while True:
            try:
                await client.submit(buy())
            except OutcomeUnknown:  # the server has not noticed yet
                continue
            except ExchangeError as e:
                assert "did not get the submit" in str(e)  # noqa: PT017  # until it is this one
                break
    await client.close()


async def test_a_missing_report_is_asked_for_and_all_come_in_order(
    nats_server: EmbeddedServer, fake: FakeVenue
) -> None:
    client, seen = client_at(nats_server), list[ExchangeReport]()
    fake.say("reports_since", {"book_id": "book-1", "last": 4, "reports": [Numbered(n, report(n)) for n in (2, 3, 4)]})
    await client.connect(seen.append)
    for n in (1, 1, 4, 3):
        await fake.push(n)
    await until(lambda: len(seen) == 4)
    await fake.push(2)
    await fake.push(5)
    await until(lambda: len(seen) == 5)
    assert [each.client_order_id for each in seen] == [f"order-{n}" for n in (1, 2, 3, 4, 5)]
    assert client.gaps >= 1
    await client.close()


async def test_what_was_reported_before_it_connected_is_not_reported_again(
    nats_server: EmbeddedServer, fake: FakeVenue
) -> None:
    client, seen = client_at(nats_server), list[ExchangeReport]()
    fake.say("status", Status("paper", "fake", "book-1", 7, 1, {}))
    await client.connect(seen.append)
    await fake.push(7)
    await fake.push(8)
    await until(lambda: client.sequence == 8)
    assert [each.client_order_id for each in seen] == ["order-8"]
    await client.close()


async def test_only_the_symbols_that_are_wanted_at_the_moment_are_passed_on(
    nats_server: EmbeddedServer, fake: FakeVenue
) -> None:
    mine = {"BTCUSDT"}
    client, seen = client_at(nats_server, wants=mine.__contains__), list[ExchangeReport]()
    await client.connect(seen.append)
    await fake.push(1)
    await fake.push(2, "ETHUSDT")
    await until(lambda: client.sequence == 2)
    mine.add("ETHUSDT")
    await fake.push(3, "ETHUSDT")
    await until(lambda: client.sequence == 3)
    assert [each.client_order_id for each in seen] == ["order-1", "order-3"]
    await client.close()


async def test_a_new_book_is_noticed_and_followed_from_its_end(
    nats_server: EmbeddedServer, fake: FakeVenue, caplog: pytest.LogCaptureFixture
) -> None:
    client, seen = client_at(nats_server, poll_s=0.02), list[ExchangeReport]()
    fake.say("status", Status("paper", "fake", "book-1", 9, 1, {}))
    fake.say("reports_since", {"book_id": "book-1", "last": 9, "reports": []})
    await client.connect(seen.append)
    fake.say("reports_since", {"book_id": "book-2", "last": 2, "reports": []})
    await until(lambda: client.sequence == 2)
    assert "has begun a new book" in caplog.text
    await fake.push(3)
    await until(lambda: len(seen) == 1)
    await client.close()


async def test_a_venue_that_does_not_answer_for_a_while_is_said_once(
    nats_server: EmbeddedServer, fake: FakeVenue, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_at(nats_server, poll_s=0.01, timeout_s=0.02)
    await client.connect(print)
    await until(lambda: fake.asked.count("reports_since") >= 4)
    assert caplog.text.count("may be missing until it answers") == 1
    await client.close()


async def test_closing_twice_and_calling_afterwards(nats_server: EmbeddedServer, fake: FakeVenue) -> None:
    client = client_at(nats_server)
    await client.connect(print)
    await client.close()
    await client.close()
    with pytest.raises(ExchangeError, match="connect it before"):
        await client.fetch_positions()


async def test_many_open_orders_come_in_pages(open_venue: Any) -> None:
    async with open_venue() as served:
        names = {f"order-{n}" for n in range(450)}
        for name in names:
            await served.client.submit(buy(name, order_type=OrderType.LIMIT, price=Decimal(50)))
        found = await served.client.fetch_open_orders()
        assert {each.client_order_id for each in found} == names
        assert len(found) == 450


async def test_after_an_outage_of_the_server_nothing_is_missing(open_venue: Any, tmp_path: Path) -> None:
    first = EmbeddedServer(tmp_path / "nats")
    await first.start()
    async with open_venue(server=first, timeout_s=2.0) as served:
        await served.client.submit(buy("before"))
        await served.trade_until(lambda: served.statuses("before") == ["ACCEPTED", "FILLED"])
        port = first.port
        await asyncio.to_thread(first.stop)
        await until(lambda: not served.client._link.client.is_connected)
        with pytest.raises(ExchangeError, match="nothing was sent") as raised:
            await served.client.submit(buy("during"))
        assert not isinstance(raised.value, OutcomeUnknown)
        async with EmbeddedServer(tmp_path / "nats", port=port):
            await until(lambda: served.client._link.client.is_connected and served.market.client.is_connected)
            await served.trade_until(lambda: served.client.sequence == 2)
            assert await answered(lambda: served.client.fetch_order("during", "BTCUSDT")) is None
            await served.client.submit(buy("after"))
            await served.trade_until(lambda: served.statuses("after") == ["ACCEPTED", "FILLED"])
            assert (await served.client.audit()).orders == 2


async def answered(ask: Any) -> Any:
    """Ask until the venue is back as well."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await ask()
            except ExchangeError:
                await asyncio.sleep(0.02)


async def test_a_connection_that_is_lost_under_way_leaves_the_outcome_unknown_at_once(
    open_venue: Any, tmp_path: Path
) -> None:
    server = EmbeddedServer(tmp_path / "nats")
    await server.start()
    port = server.port
    async with open_venue(server=server, timeout_s=60.0, slow_share=1.0, slow_s=60.0) as served:
        asking = asyncio.create_task(served.client.submit(buy()))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.stop)
        async with asyncio.timeout(60):
            with pytest.raises(OutcomeUnknown, match="the connection was lost"):
                await asking
        async with EmbeddedServer(tmp_path / "nats", port=port):
            await until(lambda: served.client._link.client.is_connected)


async def test_it_tells_when_reports_may_be_missing_and_when_all_have_come(open_venue: Any, tmp_path: Path) -> None:
    server, told = EmbeddedServer(tmp_path / "nats"), list[tuple[bool, int]]()
    await server.start()
    port = server.port
    async with open_venue(server=server, timeout_s=2.0) as served:
        served.client.watch_connection(lambda up: told.append((up, len(served.reports))))
        await served.client.submit(buy())
        await asyncio.to_thread(server.stop)
        await until(lambda: told == [(False, 0)])
        async with EmbeddedServer(tmp_path / "nats", port=port):
            await until(lambda: told[-1][0])
            await served.trade_until(lambda: served.statuses("order-1") == ["ACCEPTED", "FILLED"])
            assert [up for up, _ in told] == [False, True]
