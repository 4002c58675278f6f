"""A probe through real engines on a real server, as the user that the permissions are for."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from botplatform.audit import audit_log
from botplatform.bootstrap import ENGINES, PARTITIONED, groups, open_platform
from botplatform.bus.jetstream import JetStreamEventBus, connect_nats, setup
from botplatform.bus.jetstream.permissions import PROBE_SYMBOL, as_config
from botplatform.bus.server import EmbeddedServer
from botplatform.cli.permissions import permissions_of
from botplatform.core.events import Event, MarketEvent, OrderEvent, OrderStatus, Side
from botplatform.core.seam import SystemClock
from botplatform.errors import PermissionDenied, ProbeFailed, SettingsError
from botplatform.runtime.probe import Passed, Probe, waits_for
from botplatform.runtime.probe_trace import find_trace
from botplatform.settings import Settings, load_settings


def settings_for(user: str, url: str, tmp_path: Path, *more: str) -> Settings:
    settings = load_settings(
        None,
        ["symbols=BTCUSDT", "feed.rate=20", "bus.partitions=4", f"storage.path={tmp_path}/store.sqlite", *more],
        environ={},
    )
    nats = settings.nats.model_copy(update={"url": url, "user": user, "password": SecretStr(f"of-{user}")})
    return settings.model_copy(update={"nats": nats})


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    plain = settings_for("setup", "nats://nowhere", tmp_path)
    users = [
        {"user": user, "password": f"of-{user}", "permissions": as_config(permissions_of(user, plain))}
        for user in ("botplatform", "setup", "probe")
    ]
    async with EmbeddedServer(config={"authorization": {"users": users}}) as made:
        settings = settings_for("setup", made.url, tmp_path)
        async with await connect_nats(settings.nats, name="setup") as connection:
            await setup(connection, settings.bus, groups(settings), PARTITIONED)
        yield made


@asynccontextmanager
async def running(server: EmbeddedServer, tmp_path: Path, *engines: str) -> AsyncIterator[None]:
    async with open_platform(settings_for("botplatform", server.url, tmp_path), engines) as platform:
        task = asyncio.create_task(platform.process.run())
        yield
        platform.process.stop()
        await task


async def probed(server: EmbeddedServer, tmp_path: Path, *, timeout_s: float, without: tuple[str, ...] = ()) -> Passed:
    settings = settings_for("probe", server.url, tmp_path)
    async with await JetStreamEventBus.connect(settings.nats, settings.bus, name="probe") as bus:
        return await Probe(bus, stream="EVENTS", partitions=4, timeout_s=timeout_s).run(without)


async def test_a_chain_goes_through_every_engine_and_no_order_is_made_of_it(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    async with running(server, tmp_path, *ENGINES):
        first = await probed(server, tmp_path, timeout_s=30)
        second = await probed(server, tmp_path, timeout_s=30)
        settings = settings_for("botplatform", server.url, tmp_path)
        async with await JetStreamEventBus.connect(settings.nats, settings.bus) as bus:
            report = await audit_log(bus, signal_sets=["default"], grace_s=5.0)
    assert report.clean, report.to_dict()
    types = [delivery.event.type for delivery in first.events]
    assert types[:3] == ["market.snapshot", "signal.snapshot", "strategy.decision"]
    denied = next(delivery.event for delivery in first.events if delivery.event.type == "order.denied")
    assert isinstance(denied.payload, OrderEvent)
    assert (denied.payload.reason_code, denied.causation_id) == ("UNKNOWN_SYMBOL", first.events[2].event.id)
    assert {delivery.event.correlation_id for delivery in first.events} == {first.correlation_id}
    heard = {group.split("-")[0] for group in first.groups}
    assert heard | {"alert_sender"} == {*ENGINES, "alert_sender"} - {"market_data"}  # the alert may come after the look
    assert first.ticks > 0
    assert second.correlation_id != first.correlation_id
    assert [delivery.event.type for delivery in second.events][:4] == [*types[:3], "order.denied"]


async def test_an_engine_that_does_not_run_is_named(server: EmbeddedServer, tmp_path: Path) -> None:
    async with running(server, tmp_path, *(engine for engine in ENGINES if engine != "storage")):
        with pytest.raises(ProbeFailed, match=r"^storage did not handle the chain"):
            await probed(server, tmp_path, timeout_s=4)
        passed = await probed(server, tmp_path, timeout_s=20, without=("storage", "notifications", "market_data"))
        assert not {"storage", "notifications", "alert_sender"} & set(passed.groups)
        assert (passed.ticks, "monitoring" in passed.groups) == (0, True)
    with pytest.raises(ProbeFailed, match=r"no signal\.snapshot came of market\.snapshot .* signals engine"):
        await probed(server, tmp_path, timeout_s=1)


async def test_the_user_of_the_probe_can_publish_for_no_other_symbol(server: EmbeddedServer, tmp_path: Path) -> None:
    settings = settings_for("probe", server.url, tmp_path)
    async with await JetStreamEventBus.connect(settings.nats, settings.bus, name="probe") as bus:
        with pytest.raises(PermissionDenied, match=r"(?i)evt\.market\.snapshot\.BTCUSDT"):
            await bus.publish(Event("market.snapshot", MarketEvent("BTCUSDT", 1.0), "probe", timestamp_ns=1))


async def test_an_order_of_the_probe_is_a_failure(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for("setup", server.url, tmp_path)

    async def submits(probe: Probe, cause: Event, start: int, pattern: str, engine: str) -> Event:
        del probe, start, engine
        if pattern == "signal.snapshot":
            return cause
        order = OrderEvent("o-1", PROBE_SYMBOL, Side.BUY, Decimal(1), OrderStatus.SUBMITTED)
        return Event("order.submitted", order, "execution", timestamp_ns=1, causation_id=cause.id)

    monkeypatch.setattr(Probe, "_answer", submits)
    async with await JetStreamEventBus.connect(settings.nats, settings.bus, name="setup") as bus:
        monkeypatch.setattr(bus, "publish", lambda _: asyncio.sleep(0))
        with pytest.raises(ProbeFailed, match=r"made an order of the probe's decision \(order\.submitted o-1\)"):
            await Probe(bus, stream="EVENTS", partitions=4, timeout_s=5).run()


@pytest.mark.parametrize(
    ("wanted", "subject", "meets"),
    [
        ("order.*.3.*", "order.denied.3.X", True),
        ("order.*.3.*", "order.denied.4.X", False),
        ("order.>", "order.denied.4.X", True),
        ("order.denied.4.X.>", "order.denied.4.X", False),
        ("order.*", "order.denied.4.X", False),
        ("order.*.*.*.*", "order.denied.4.X", False),
    ],
)
def test_subjects_meet_as_the_server_has_it(wanted: str, subject: str, meets: bool) -> None:
    assert waits_for(wanted, subject) is meets


@contextmanager
def jaeger(answers: list[tuple[int, object]]) -> Iterator[str]:
    """Answer one question after the other as Jaeger does, the last one for ever."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.pop(0) if len(answers) > 1 else answers[0]
            data = json.dumps(body).encode()
            self.send_response(status if self.path == "/ui/api/traces/abc" else 500)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{made.server_port}/ui"
        made.shutdown()
        thread.join()


def trace_of(*operations: str) -> dict[str, object]:
    processes = {"p1": {"serviceName": "botplatform-execution"}, "p2": {"serviceName": "botplatform-signals"}}
    spans = [{"operationName": one, "processID": f"p{1 + at % 2}"} for at, one in enumerate(operations)]
    return {"data": [{"traceID": "abc", "spans": spans, "processes": processes}]}


async def test_a_trace_is_waited_for() -> None:
    answers: list[tuple[int, object]] = [(404, {}), (200, trace_of("x")), (200, trace_of("publish order.denied", "y"))]
    with jaeger(answers) as url:
        trace = await find_trace(url, "abc", ["execution", "signals"], SystemClock(), timeout_s=20)
    assert trace == (2, ("botplatform-execution", "botplatform-signals"), ("publish order.denied", "y"))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((404, {}), "Jaeger does not have it"),
        ((200, trace_of("x")), "it has 1 spans, none of signals"),
        ((503, {}), "Jaeger answered 503"),
        ((200, ["no"]), "what answers is not Jaeger"),
    ],
)
async def test_a_trace_that_is_missing_is_said(answer: tuple[int, object], says: str) -> None:
    with jaeger([answer]) as url, pytest.raises(ProbeFailed, match=says):
        await find_trace(url, "abc", ["execution", "signals"], SystemClock(), timeout_s=0.1)


async def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="is no address"):
        await find_trace("jaeger:16686", "abc", ["x"], SystemClock(), timeout_s=1)


async def test_no_engine_trades_the_symbol_of_probes() -> None:
    settings = load_settings(None, ("bus.backend=memory", f"symbols={PROBE_SYMBOL}"), environ={})
    with pytest.raises(SettingsError, match="it would be traded"):
        async with open_platform(settings):
            pass  # pragma: no cover  # it does not open
