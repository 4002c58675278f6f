"""One limit for an account, whoever sends: by compare-and-set on the real server, and the same in backtests."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from botplatform.bootstrap import PARTITIONED, build_backtest, groups, open_platform
from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.bus.jetstream.kv import Bucket
from botplatform.bus.jetstream.setup import ACCOUNTS
from botplatform.bus.jetstream.setup import setup as set_up
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event, OrderEvent, PositionSide
from botplatform.core.seam import SystemClock
from botplatform.errors import BusError
from botplatform.feeds.recording import open_recording
from botplatform.feeds.synthetic import SyntheticMarket
from botplatform.runtime.account_ledger import AccountLedger, BucketRecords, MemoryRecords
from botplatform.settings import BusSettings, NatsSettings, Settings, load_settings
from botplatform.testing import START_NS, order
from botplatform.trading.account_limit import AccountRecord, Use

LIMIT = Decimal(1000)
SYMBOLS = tuple(f"S{number}USDT" for number in range(8))
PATIENCE_S = 60.0


def opening(order_id: str, symbol: str, notional: int) -> OrderEvent:
    payload = order(order_id=order_id, symbol=symbol, quantity=notional, price="1", order_type="LIMIT").payload
    assert isinstance(payload, OrderEvent)
    return payload


def held(symbol: str, cost: int, epoch: int = 0) -> Use:
    return Use(symbol, epoch, {}, frozenset(), {PositionSide.LONG: Decimal(cost)} if cost else {})


@pytest.fixture
async def server() -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer() as running:
        yield running


@pytest.fixture
async def connection(server: EmbeddedServer) -> AsyncIterator[Connection]:
    async with await connect_nats(NatsSettings(url=server.url)) as made:
        await set_up(made, BusSettings(), {})
        yield made


async def test_eight_ledgers_that_reserve_at_once_stay_within_the_limit(
    server: EmbeddedServer, connection: Connection
) -> None:
    connections = [await connect_nats(NatsSettings(url=server.url)) for _ in SYMBOLS]
    ledgers = [
        AccountLedger(BucketRecords(Bucket(each, ACCOUNTS), "paper"), LIMIT, SystemClock()) for each in connections
    ]
    asked = [
        (ledger, opening(f"{symbol}-{number}", symbol, 90))
        for number in range(3)
        for ledger, symbol in zip(ledgers, SYMBOLS, strict=True)
    ]
    answers = await asyncio.gather(*(ledger.reserve(payload) for ledger, payload in asked))
    assert answers.count(None) == 11, "eleven times 90 fit into 1000, twelve do not"
    assert {answer[0].value for answer in answers if answer is not None} == {"ACCOUNT_LIMIT"}
    assert sum(ledger.conflicts for ledger in ledgers) > 0, "they did meet"
    record, _ = await BucketRecords(Bucket(connection, ACCOUNTS), "paper").read()
    assert record.used == 990
    again = await asyncio.gather(*(ledger.reserve(payload) for ledger, payload in asked))
    assert again == answers, "asked again, nothing counts twice"
    await asyncio.gather(*(ledger.settle(held(each, 0)) for ledger, each in zip(ledgers, SYMBOLS, strict=True)))
    record, _ = await BucketRecords(Bucket(connection, ACCOUNTS), "paper").read()
    assert record.used == 0
    for each in connections:
        await each.close()


async def test_what_others_have_given_back_is_seen_before_an_order_is_refused() -> None:
    records = MemoryRecords()
    one, other = (AccountLedger(records, LIMIT, SystemClock()) for _ in range(2))
    assert await one.reserve(opening("a", "AUSDT", 900)) is None
    assert await other.reserve(opening("b", "BUSDT", 900)) is not None
    await one.settle(held("AUSDT", 0))
    assert await other.reserve(opening("b", "BUSDT", 900)) is None


async def test_a_closing_order_needs_no_room() -> None:
    ledger = AccountLedger(MemoryRecords(), Decimal(1), SystemClock())
    closing = order(side="SELL", position_side="LONG", reduce_only=True, quantity=100, price="100").payload
    assert isinstance(closing, OrderEvent)
    assert await ledger.reserve(closing) is None


class Broken(MemoryRecords):
    """Records that cannot be reached for a while."""

    broken = True

    async def write(self, record: AccountRecord, expected: int) -> int:
        if self.broken:
            raise BusError("nobody answers")
        return await super().write(record, expected)


async def test_a_check_that_fails_denies_and_what_could_not_be_written_is_written_later() -> None:
    records = Broken()
    ledger = AccountLedger(records, LIMIT, SystemClock())
    refused = await ledger.reserve(opening("a", "AUSDT", 1))
    assert refused is not None
    assert refused[0].value == "ACCOUNT_LIMIT"
    assert "cannot be checked" in refused[1]
    settling = asyncio.create_task(ledger.settle(held("AUSDT", 70)))
    await asyncio.sleep(0.05)
    records.broken = False
    await settling
    async with asyncio.timeout(PATIENCE_S):
        while records.record.used != 70:  # noqa: ASYNC110  # the record has nothing to wait on
            await asyncio.sleep(0.05)
    await ledger.close()


async def test_an_owner_that_was_followed_cannot_reserve() -> None:
    records = MemoryRecords()
    old, new = (AccountLedger(records, LIMIT, SystemClock()) for _ in range(2))
    assert await old.reserve(opening("a", "AUSDT", 900), epoch=1) is None
    await new.take_over([held("AUSDT", 300, 2)], lambda _: True, 2)
    assert records.record.used == 300
    assert await old.reserve(opening("b", "AUSDT", 1), epoch=1) is not None
    await old.settle(held("AUSDT", 900, 1))
    assert records.record.used == 300


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A recording of trades, made from the synthetic market."""
    path = tmp_path / "trades.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["timestamp", "id", "side", "price", "amount", "cost"])
        for number, seen in enumerate(SyntheticMarket(("BTCUSDT",), seed=3, rate=10, start_ns=START_NS, limit=200)):
            cost = seen.price * seen.volume
            rows.writerow([seen.timestamp_ns // 1_000_000, number, "buy", seen.price, seen.volume, cost])
    return path


def settings_for(recording: Path, *more: str) -> Settings:
    given = (
        "symbols=BTCUSDT",
        "bus.log_id=account",
        "risk.max_account_notional=3200",
        "execution.max_decision_age_s=60",
        f"storage.path={recording}.sqlite",
        "feed.kind=file",
        f"feed.path={recording}",
        *more,
    )
    return load_settings(None, given, environ={})


def orders(log: list[Event]) -> list[tuple[str, str, object]]:
    return [(event.type, event.id, event.payload) for event in log if event.type.startswith("order.")]


def denied(log: list[Event]) -> list[int]:
    """The places in the log at which the account had no room."""
    return [n for n, event in enumerate(log) if getattr(event.payload, "reason_code", "") == "ACCOUNT_LIMIT"]


def backtest(settings: Settings) -> list[Event]:
    log: list[Event] = []
    run = build_backtest(settings, observers=[log.append])
    for snapshot in open_recording(settings.feed.path or Path(), "BTCUSDT"):
        run.show(snapshot)
        if run.runtime.account is not None:
            assert run.runtime.account.record.used <= settings.risk.max_account_notional
    return log


def test_a_backtest_keeps_to_the_limit_and_frees_what_is_closed(recording: Path) -> None:
    log = backtest(settings_for(recording))
    assert denied(log)
    assert any(event.type == "order.filled" for event in log[: denied(log)[0]]), "what is held counts"
    assert any(event.type == "order.filled" for event in log[denied(log)[0] :]), "what is closed makes room"
    assert denied(backtest(settings_for(recording, "risk.max_account_notional=0"))) == []


async def test_a_run_on_the_real_server_denies_what_a_backtest_denies(recording: Path, server: EmbeddedServer) -> None:
    settings = settings_for(recording, "feed.pace=settled", f"nats.url={server.url}")
    made = await JetStreamEventBus.connect(
        settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
    )
    async with made as bus:
        async with open_platform(settings) as platform:
            await asyncio.wait_for(platform.process.run(), 120)
        log = [delivery.event async for delivery in bus.replay(["order.*"])]
        record, _ = await BucketRecords(Bucket(bus.connection, ACCOUNTS), "paper").read()
    expected = backtest(settings)
    assert len(denied(expected)) > 1
    assert orders(log) == orders(expected)
    assert record.used <= 3200
