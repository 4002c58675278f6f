"""The health port, asked over real HTTP."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from botplatform.bus.jetstream import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import PositionSide, TradingState
from botplatform.core.seam import SimulatedClock
from botplatform.errors import BusError, SettingsError
from botplatform.runtime.facts import AccountFacts
from botplatform.runtime.health import EngineStatus, HealthState, group_lag, serve_health
from botplatform.runtime.http_server import MAX_CONNECTIONS, MAX_REQUEST, Request, Response, serve_http
from botplatform.settings import BusSettings, NatsSettings
from botplatform.settings_health import HealthSettings
from botplatform.telemetry.metrics import EngineMeter
from botplatform.telemetry.metrics_catalogue import MAX_SYMBOLS
from botplatform.testing import START_NS, decision, market, order


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@pytest.fixture
def state() -> HealthState:
    clock = SimulatedClock(START_NS + 3_000_000)
    meter = EngineMeter("signals", clock)
    meter.dead_letters, meter.redelivered = 1, 2
    for _ in range(7):
        meter.handled(market("BTCUSDT", correlation_id="ab" * 16), clock.monotonic_ns() - 30_000)
    meter.handled(decision(correlation_id="cd" * 16), clock.monotonic_ns() - 30_000)
    meter.sent([market("BTCUSDT")] * 5)
    engine = EngineStatus(
        "signals",
        owned=[0, 4],
        sequences={0: 99, 4: 97},
        checkpoint_age_s={0: 1.5, 4: 0},
        quarantined=1,
        unreconciled=2,
        store_refuses=True,
        lag={0: 3},
        meter=meter,
    )
    return HealthState(started=True, engines=[engine, EngineStatus("storage")], publish_in_flight=2)


@pytest.fixture
async def port(state: HealthState) -> AsyncIterator[int]:
    async with serve_health(HealthSettings(port=free_port()), state) as port:
        yield port


async def ask(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    def request() -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read(), response.headers
        finally:
            connection.close()

    return await asyncio.to_thread(request)


async def ask_json(port: int, path: str) -> tuple[int, Any]:
    status, body, _ = await ask(port, path)
    return status, json.loads(body)


async def say(port: int, data: bytes) -> bytes:
    """Send raw bytes, and return what comes until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_process_that_works_is_alive_ready_and_started(port: int) -> None:
    for path in ("/livez", "/readyz", "/startupz", "/readyz?verbose"):
        assert await ask_json(port, path) == (200, {"ok": True})


async def test_before_it_has_started_it_is_alive_only(port: int, state: HealthState) -> None:
    state.started = False
    said = {"ok": False, "reasons": ["it has not finished starting"]}
    assert (await ask_json(port, "/livez"))[0] == 200
    assert await ask_json(port, "/startupz") == (503, said)
    assert await ask_json(port, "/readyz") == (503, said)


async def test_from_the_beginning_of_the_drain_on_it_is_not_ready(port: int, state: HealthState) -> None:
    state.draining = True
    assert await ask_json(port, "/readyz") == (503, {"ok": False, "reasons": ["it is draining"]})
    assert (await ask_json(port, "/livez"))[0] == (await ask_json(port, "/startupz"))[0] == 200


async def test_without_a_connection_or_with_problems_it_is_not_ready_and_says_why(
    port: int, state: HealthState
) -> None:
    state.connected = False
    state.problems = ["signals owns 3 of 5 partitions"]
    status, said = await ask_json(port, "/readyz")
    assert (status, said["reasons"]) == (503, ["it is not connected to the bus", "signals owns 3 of 5 partitions"])
    assert (await ask_json(port, "/livez"))[0] == 200


async def test_a_process_that_cannot_go_on_is_not_alive(port: int, state: HealthState) -> None:
    state.failed = "the engine signals stopped"
    said = {"ok": False, "reasons": ["the engine signals stopped"]}
    assert await ask_json(port, "/livez") == await ask_json(port, "/readyz") == (503, said)


async def test_the_state_is_brought_up_to_date_before_each_answer(port: int, state: HealthState) -> None:
    state.refresh = lambda each: setattr(each, "draining", True)
    assert (await ask_json(port, "/readyz"))[0] == 503


async def test_the_lag_is_a_number(port: int, state: HealthState) -> None:
    async def lag() -> int:
        return 42

    assert await ask_json(port, "/lag") == (200, {"lag": 0})
    state.lag = lag
    assert await ask_json(port, "/lag") == (200, {"lag": 42})


async def test_a_lag_that_nobody_knows_is_an_error() -> None:
    async def refused() -> int:
        raise BusError("the log does not answer")

    async def silent() -> int:
        await asyncio.Event().wait()
        return 0

    state = HealthState(started=True, lag=refused)
    async with serve_health(HealthSettings(port=free_port(), lag_timeout_s=0.05), state) as port:
        assert await ask_json(port, "/lag") == (503, {"error": "the log does not answer"})
        state.lag = silent
        status, said = await ask_json(port, "/lag")
        assert status == 503
        assert "0.05 s" in said["error"]


async def test_the_metrics_are_prometheus_text(port: int, state: HealthState) -> None:
    mine = Counter("botplatform_mine", "Of somebody else.", registry=state.registry)
    mine.inc(3)
    meter = state.engines[0].meter
    assert meter is not None
    meter.handled(order("order.denied", reason_code="HALTED"), 0)
    state.engines.append(EngineStatus("monitoring", meter=EngineMeter("monitoring", SimulatedClock(START_NS))))
    status, body, headers = await ask(port, "/metrics", Accept="text/plain;version=0.0.4")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    expected = {
        ("botplatform_events_in_total", "signals", "market.snapshot"): 7,
        ("botplatform_events_in_total", "signals", "strategy.decision"): 1,
        ("botplatform_events_out_total", "signals", "market.snapshot"): 5,
        ("botplatform_handled_sequence", "signals", "0"): 99,
        ("botplatform_lag_events", "signals", "0"): 3,
        ("botplatform_checkpoint_age_seconds", "signals", "0"): 1.5,
        ("botplatform_quarantined_symbols", "signals"): 1,
        ("botplatform_unreconciled_partitions", "signals"): 2,
        ("botplatform_store_refuses", "signals"): 1,
        ("botplatform_denied_orders_total", "signals", "HALTED"): 1,
        ("botplatform_denied_orders_total", "monitoring", "HALTED"): 0,
        ("botplatform_owned_partitions", "signals"): 2,
        ("botplatform_owned_partitions", "storage"): 0,
        ("botplatform_publish_in_flight",): 2,
        ("botplatform_dead_letters_total", "signals"): 1,
        ("botplatform_redeliveries_total", "signals"): 2,
        ("botplatform_reconnects_total",): 0,
        ("botplatform_ready",): 1,
        ("botplatform_mine_total",): 3,
        ("botplatform_processing_seconds_bucket", "signals", "2.5e-05", "market.snapshot"): 0,
        ("botplatform_processing_seconds_bucket", "signals", "5e-05", "market.snapshot"): 7,
        ("botplatform_processing_seconds_count", "signals", "market.snapshot"): 7,
        ("botplatform_event_latency_seconds_sum", "signals", "market.snapshot"): 0.021,
    }
    assert samples | expected == samples
    assert not [name for name in samples if name[:2] == ("botplatform_lag_events", "storage")]
    assert samples[("process_resident_memory_bytes",)] > 0


async def test_openmetrics_is_spoken_where_it_is_asked_for(port: int) -> None:
    _, body, headers = await ask(port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    exemplars = {
        (sample.name, sample.labels["type"], sample.exemplar.labels["trace_id"], sample.exemplar.value)
        for family in openmetrics(body.decode())  # type: ignore[no-untyped-call]  # prometheus_client leaves it out
        for sample in family.samples
        if sample.exemplar
    }
    assert exemplars == {
        ("botplatform_processing_seconds_bucket", "strategy.decision", "cd" * 16, 30e-6),
        ("botplatform_event_latency_seconds_bucket", "strategy.decision", "cd" * 16, 3e-3),
    }, "ticks are not traced, decisions always are"


@pytest.mark.parametrize("silent", [False, True])
async def test_what_the_log_does_not_say_in_time_is_absent_and_the_rest_is_served(*, silent: bool) -> None:
    async def look(state: HealthState) -> None:
        state.trading = TradingState.HALTED
        if silent:
            await asyncio.Event().wait()
        raise BusError("the log does not answer")

    state = HealthState(started=True, look=look, lag_known=True)
    async with serve_health(HealthSettings(port=free_port(), lag_timeout_s=0.05), state) as port:
        _, body, _ = await ask(port, "/metrics")
    assert b"botplatform_lag_known 0.0" in body
    assert b'botplatform_trading_state{engine="execution",state="HALTED"} 1.0' in body
    assert b'botplatform_trading_state{engine="execution",state="ACTIVE"} 0.0' in body
    assert b"botplatform_ready 1.0" in body


async def test_positions_beyond_the_bound_are_counted_and_have_no_series(port: int, state: HealthState) -> None:
    held = {(f"S{number:03}", PositionSide.LONG): Decimal("0.5") for number in range(MAX_SYMBOLS + 3)}
    one = Decimal(1)
    state.account = AccountFacts(held, {PositionSide.LONG: 103}, one, -one, one, one, one / 8)
    _, body, _ = await ask(port, "/metrics")
    lines = body.decode().splitlines()
    assert len([line for line in lines if line.startswith("botplatform_position_quantity{")]) == MAX_SYMBOLS
    for expected in (
        'botplatform_position_quantity{engine="portfolio",side="LONG",symbol="S099"} 0.5',
        'botplatform_position_symbols_left_out{engine="portfolio"} 3.0',
        'botplatform_positions_open{engine="portfolio",side="LONG"} 103.0',
        'botplatform_unrealized_profit{engine="portfolio"} -1.0',
        'botplatform_drawdown_ratio{engine="portfolio"} 0.125',
    ):
        assert expected in lines


async def test_an_unknown_path_is_told_the_known_ones(port: int) -> None:
    status, said = await ask_json(port, "/")
    assert status == 404
    assert "/readyz" in said["error"]


async def test_only_questions_are_answered(port: int) -> None:
    status, _, headers = await ask(port, "/readyz", "POST")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    status, body, headers = await ask(port, "/readyz", "HEAD")
    assert (status, body, int(headers["Content-Length"])) == (200, b"", len(b'{"ok": true}\n'))


async def test_a_connection_serves_one_question_after_the_other(port: int) -> None:
    question = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    assert (await say(port, question * 3)).count(b"HTTP/1.1 200") == 3


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"x" * MAX_REQUEST * 2, b"431"),
        (b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n" + b"x" * 99999, b"405"),
    ],
)
async def test_what_is_no_question_is_refused(port: int, data: bytes, status: bytes) -> None:
    try:
        assert (await say(port, data)).startswith(b"HTTP/1.1 " + status)
    except ConnectionError:
        assert len(data) > MAX_REQUEST, "only who still talks may be cut off"
    assert (await ask_json(port, "/livez"))[0] == 200


async def test_who_says_nothing_does_not_keep_others_from_asking(port: int) -> None:
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS - 4)]
    assert (await ask_json(port, "/livez"))[0] == 200
    for _, writer in silent:
        writer.close()
        await writer.wait_closed()


async def test_more_connections_than_allowed_are_closed() -> None:
    async def answer(request: Request) -> Response:
        return Response(200, b"{}")

    async with serve_http("127.0.0.1", 0, answer) as port:
        open_ones = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MAX_CONNECTIONS)]
        await asyncio.sleep(0.05)
        assert await say(port, b"") == b""
        for _, writer in open_ones:
            writer.close()
            await writer.wait_closed()


async def test_an_answer_that_fails_is_an_error_of_that_answer_only(caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: Request) -> Response:
        if request.path == "/bad":
            raise ValueError("secret")
        return Response(200, b"{}")

    async with serve_http("127.0.0.1", 0, answer) as port:
        status, body, _ = await ask(port, "/bad")
        assert status == 500
        assert b"secret" not in body
        assert (await ask(port, "/good"))[0] == 200
    assert "/bad could not be answered" in caplog.text


async def test_port_0_serves_nothing() -> None:
    async with serve_health(HealthSettings(), HealthState()) as port:
        assert port == 0


async def test_a_port_in_use_is_said_in_one_sentence(port: int) -> None:
    with pytest.raises(SettingsError, match=f"health.port {port} of 127.0.0.1 is in use"):
        async with serve_health(HealthSettings(port=port), HealthState()):
            pass


async def test_a_host_of_another_machine_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"health\.host 192\.0\.2\.1"):
        async with serve_health(HealthSettings(host="192.0.2.1", port=free_port()), HealthState()):
            pass


async def test_after_the_end_nothing_is_served_and_the_state_can_be_served_again(state: HealthState) -> None:
    settings = HealthSettings(port=free_port())
    for _ in range(2):
        async with serve_health(settings, state) as port:
            _, waiting = await asyncio.open_connection("127.0.0.1", port)
            assert (await ask(port, "/metrics"))[0] == 200
        waiting.close()
        with pytest.raises(ConnectionRefusedError):
            await ask(settings.port, "/livez")


async def test_the_lag_of_a_group_is_what_the_log_has_for_it() -> None:
    groups = {"signals": ["market.*"], "portfolio": ["market.*"], "strategy": ["order.*"]}
    async with EmbeddedServer() as server:
        nats = NatsSettings(url=server.url)
        async with await JetStreamEventBus.connect(nats, BusSettings(), groups=groups) as bus:
            await bus.publish_all(market(symbol, id=symbol) for symbol in ("A", "B", "C"))
            stream = BusSettings().stream
            assert await group_lag(bus.connection, stream, ["signals"]) == 3
            assert await group_lag(bus.connection, stream, ["strategy"]) == 0
            assert await group_lag(bus.connection, stream, ["signals", "portfolio", "strategy"]) == 6
