"""The permissions of engines and people, enforced by the real server."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from pydantic import SecretStr
from typer.testing import CliRunner

from botplatform import testing
from botplatform.bootstrap import ENGINES, PARTITIONED, groups, open_platform
from botplatform.bus.jetstream import Bucket, Connection, JetStreamEventBus, connect_nats, setup
from botplatform.bus.jetstream.direct import DirectClient
from botplatform.bus.jetstream.permissions import ROLES, as_config, connection_name, engine_permissions
from botplatform.bus.server import EmbeddedServer, find_binary
from botplatform.cli import app
from botplatform.cli.permissions import permissions_of
from botplatform.core.events import TradingState
from botplatform.core.seam import SystemClock
from botplatform.errors import PermissionDenied, StreamError
from botplatform.runtime.operator import change_trading_state
from botplatform.runtime.trading_state import BucketTradingState
from botplatform.settings import BusSettings, Settings, load_settings

PATIENCE_S = 60.0
AT_ONCE_S = 20.0
"""Less than it takes to give up waiting for an answer."""
USERS = (*ENGINES, *ROLES)


def settings_for(user: str, url: str, tmp_path: Path) -> Settings:
    settings = load_settings(
        None,
        ["symbols=BTCUSDT,ETHUSDT", "feed.rate=40", "bus.partitions=4", f"storage.path={tmp_path}/{user}.sqlite"],
        environ={},
    )
    reached = settings.nats.model_copy(
        update={"url": url, "user": user, "password": SecretStr(f"of-{user}"), "request_timeout_s": 60.0}
    )
    return settings.model_copy(update={"nats": reached})


@asynccontextmanager
async def strict_server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """Run a server where everybody may do what `botplatform permissions` prints, set up by the role for that."""
    plain = settings_for("setup", "nats://nowhere", tmp_path)
    users = [
        {"user": user, "password": f"of-{user}", "permissions": as_config(permissions_of(user, plain))}
        for user in USERS
    ]
    async with EmbeddedServer(config={"authorization": {"users": users}}) as server:
        settings = settings_for("setup", server.url, tmp_path)
        async with await connect_nats(settings.nats, name="setup") as connection:
            await setup(connection, settings.bus, groups(settings), PARTITIONED)
        yield server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with strict_server(tmp_path) as made:
        yield made


async def connection_of(user: str, server: EmbeddedServer, tmp_path: Path) -> Connection:
    return await connect_nats(settings_for(user, server.url, tmp_path).nats, name=user)


async def test_all_engines_run_each_as_its_own_user_and_orders_flow_to_a_watcher(
    server: EmbeddedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: dict[str, int] = {}
    enough = asyncio.Event()

    async def watch(message: Msg) -> None:
        seen[message.subject] = seen.get(message.subject, 0) + 1
        if seen.get("order.filled", 0) >= 3 and "state.updated" in seen and "system.heartbeat" in seen:
            enough.set()

    tap = DirectClient()  # its `flush` is one
    await tap.connect(server.url, user="tap", password="of-tap")
    for domain in ("order", "state", "system", "trading"):
        await tap.subscribe(f"{domain}.>", cb=watch)
    await tap.flush()
    async with AsyncExitStack() as stack:
        running = []
        for engine in reversed(ENGINES):
            platform = await stack.enter_async_context(
                open_platform(settings_for(engine, server.url, tmp_path), [engine])
            )
            running.append((platform, asyncio.create_task(platform.process.run())))
        waiting = asyncio.create_task(enough.wait())
        async with asyncio.timeout(60):
            await asyncio.wait([waiting, *(task for _, task in running)], return_when=asyncio.FIRST_COMPLETED)
        for _, task in running:
            if task.done():
                task.result()
        assert enough.is_set()
        operator = settings_for("operator", server.url, tmp_path)
        async with await JetStreamEventBus.connect(operator.nats, operator.bus, name="operator") as bus:
            state = BucketTradingState(bus.trading)
            why = {"reason": "test", "changed_by": "test"}
            await change_trading_state(bus, state, SystemClock(), TradingState.HALTED, **why)
            assert (await state.read()).state is TradingState.HALTED
        async with asyncio.timeout(PATIENCE_S):
            while "trading.halted" not in seen:  # noqa: ASYNC110  # the server does it
                await asyncio.sleep(0.01)
        for platform, _ in running:
            platform.process.stop()
        await asyncio.gather(*(task for _, task in running))
    await tap.close()
    assert "does not let this user" not in caplog.text


@asynccontextmanager
async def signals_bus(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[JetStreamEventBus]:
    settings = settings_for("signals", server.url, tmp_path)
    async with await JetStreamEventBus.connect(settings.nats, settings.bus, name="signals") as bus:
        yield bus


async def test_a_foreign_event_fails_its_publisher_and_the_process_and_its_own_goes_through(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    async with signals_bus(server, tmp_path) as bus:
        sentence = (
            r"does not let this user publish to evt\.order\.filled\.btcusdt: give it the permissions that "
            r"`botplatform permissions --engine signals` prints"
        )
        async with asyncio.timeout(AT_ONCE_S):
            with pytest.raises(PermissionDenied, match=sentence):
                await bus.publish_all(
                    [testing.signal(id="before"), testing.order("order.filled"), testing.signal(id="b")]
                )
            with pytest.raises(PermissionDenied, match=sentence):
                await bus.wait_failed()
        await bus.publish(testing.signal(id="after"))
        assert [d.event.id async for d in bus.replay(["*"])] == ["before", "b", "after"]


def foreign_checkpoint(bus: JetStreamEventBus) -> Awaitable[object]:
    return bus.checkpoints.put("strategy-0", b"x")


def foreign_partition(bus: JetStreamEventBus) -> Awaitable[object]:
    return Bucket(bus.connection, "partitions").put("strategy.0", b"x")


def trading_state(bus: JetStreamEventBus) -> Awaitable[object]:
    return bus.trading.put("state", b"x")


def stream_deletion(bus: JetStreamEventBus) -> Awaitable[object]:
    return bus.connection.api("STREAM.DELETE.EVENTS")


def purge(bus: JetStreamEventBus) -> Awaitable[object]:
    return bus.connection.api("STREAM.PURGE.EVENTS")


def consumer_creation(bus: JetStreamEventBus) -> Awaitable[object]:
    body = {"stream_name": "EVENTS", "config": {"durable_name": "mine", "ack_policy": "none"}}
    return bus.connection.api("CONSUMER.CREATE.EVENTS.mine", body)


def foreign_reset(bus: JetStreamEventBus) -> Awaitable[object]:
    return bus.connection.api("CONSUMER.RESET.EVENTS.strategy-0", {"seq": 1})


@pytest.mark.parametrize(
    "attempt",
    [
        foreign_checkpoint,
        foreign_partition,
        trading_state,
        stream_deletion,
        purge,
        consumer_creation,
        foreign_reset,
    ],
)
async def test_what_belongs_to_others_is_refused_at_once_by_name(
    server: EmbeddedServer, tmp_path: Path, attempt: Callable[[JetStreamEventBus], Awaitable[object]]
) -> None:
    async with signals_bus(server, tmp_path) as bus:
        async with asyncio.timeout(AT_ONCE_S):
            with pytest.raises(
                PermissionDenied, match=r"does not let this user publish to \$(kv|js)\..*--engine signals"
            ):
                await attempt(bus)
        assert await bus.last_sequence() == 0


async def test_its_own_checkpoint_and_replay_are_allowed(server: EmbeddedServer, tmp_path: Path) -> None:
    async with signals_bus(server, tmp_path) as bus:
        revision = await bus.checkpoints.put("signals-0", b"state", expected=0)
        assert await bus.checkpoints.get("signals-0") == (b"state", revision)
        await bus.publish_all(testing.signal(id=f"s{i}") for i in range(700))
        assert [d.sequence async for d in bus.replay(["signal.*", "order.*"], after=10)] == list(range(11, 701))


async def test_setup_puts_a_checkpoint_back_that_was_lost(server: EmbeddedServer, tmp_path: Path) -> None:
    settings = settings_for("setup", server.url, tmp_path)
    async with await connect_nats(settings.nats, name="setup") as connection:
        await Bucket(connection, "checkpoints").put("signals-0", b"from a backup")
    async with signals_bus(server, tmp_path) as bus:
        found = await bus.checkpoints.get("signals-0")
        assert found is not None
        assert found[0] == b"from a backup"


async def test_whoever_is_second_to_claim_a_partition_is_told_so_and_not_that_it_may_not_ask(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    async with await connection_of("signals", server, tmp_path) as connection:
        for name, key in (("partitions", "signals.0"), ("members", "signals-one")):
            bucket = Bucket(connection, name)
            await bucket.put(key, b"first", expected=0)
            with pytest.raises(StreamError, match="changed by somebody else"):
                await bucket.put(key, b"second", expected=0)
            await bucket.delete(key)
            await bucket.put(key, b"third", expected=0)


async def test_a_subscription_that_is_not_allowed_is_an_error_and_not_silence(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    async def handler(_: object) -> None: ...

    async with signals_bus(server, tmp_path) as bus:
        bus.subscribe("order.*", handler)
        async with asyncio.timeout(AT_ONCE_S):
            with pytest.raises(PermissionDenied, match=r"subscribe to order\.\*: give it the permissions"):
                await bus.ready()


async def test_an_inbox_of_somebody_else_is_one_clear_sentence(server: EmbeddedServer, tmp_path: Path) -> None:
    settings = settings_for("signals", server.url, tmp_path)
    foreign = settings.nats.model_copy(update={"inbox_prefix": "_INBOX_strategy"})
    async with asyncio.timeout(AT_ONCE_S):
        with pytest.raises(PermissionDenied, match=r"subscribe to _inbox_strategy\.\S+: give it the permissions"):
            await connect_nats(foreign, name="signals")


async def test_a_watcher_can_publish_nothing_and_read_nothing_else(server: EmbeddedServer) -> None:
    refused: list[str] = []

    async def error(e: Exception) -> None:
        refused.append(str(e))

    tap = DirectClient()
    await tap.connect(server.url, user="tap", password="of-tap", error_cb=error)
    for subject in ("evt.order.filled.BTCUSDT", "order.filled", "$JS.API.STREAM.INFO.EVENTS", "$KV.trading.state"):
        await tap.publish(subject, b"")
    for subject in (">", "_INBOX.>", "$KV.>", "evt.>"):
        await tap.subscribe(subject)
    async with asyncio.timeout(PATIENCE_S):
        while len(refused) < 8:  # noqa: ASYNC110  # the server says each when it comes to it
            await asyncio.sleep(0.01)
    await tap.flush()
    assert len(refused) == 8, refused
    await tap.close()


def test_an_engine_gets_what_it_declares_and_one_line_in_the_table_is_all_it_takes() -> None:
    found = engine_permissions(
        ["portfolio"], groups=["portfolio"], consumers=["portfolio"], publishes=["state.updated"], stream="LOG"
    )
    assert {"evt.state.updated.*", "evt.system.error.*", "evt.system.heartbeat.*"} <= set(found.publish)
    assert "$JS.API.CONSUMER.MSG.NEXT.LOG.portfolio" in found.publish
    assert not [one for one in found.publish if "CREATE" in one or "DELETE" in one or "PURGE" in one or one == ">"]
    assert "_INBOX_portfolio.>" in found.subscribe
    assert not [one for one in (*found.publish, *found.subscribe) if "{" in one]
    assert connection_name(["signals", "strategy"]) == "botplatform"


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_may_ask_the_leader_for_whatever_it_may_write(engine: str) -> None:
    allowed = set(permissions_of(engine, Settings()).publish)
    written = {subject.split(".")[1] for subject in allowed if subject.startswith("$KV.")}
    assert {"members", "partitions"} <= written
    assert not [name for name in written if f"$JS.API.STREAM.MSG.GET.KV_{name}" not in allowed]


@pytest.mark.parametrize("engine", ENGINES)
def test_no_engine_may_publish_what_another_one_declares_alone(engine: str) -> None:
    settings = Settings(bus=BusSettings(partitions=2))
    others = {
        "evt.order.filled.X": "execution",
        "evt.strategy.decision.X": "strategy",
        "evt.market.snapshot.X": "market_data",
    }
    allowed = permissions_of(engine, settings).publish
    for subject, owner in others.items():
        domain, action = subject.split(".")[1:3]
        matching = {f"evt.{domain}.{action}.*", f"evt.{domain}.*.*"} & set(allowed)
        assert bool(matching) == (owner == engine)


def test_the_command_prints_configuration_that_the_server_takes(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["permissions", "--engine", "signals", "--engine", "tap"])
    assert printed.exit_code == 0
    config = tmp_path / "nats.conf"
    config.write_text(printed.stdout)
    environment = {**os.environ, "SIGNALS_PASSWORD": "one", "TAP_PASSWORD": "two"}
    checked = subprocess.run([find_binary(), "-t", "-c", config], env=environment, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert '"evt.signal.snapshot.*"' in printed.stdout
    assert "password: $SIGNALS_PASSWORD" in printed.stdout
    as_json = CliRunner().invoke(app, ["permissions", "--engine", "tap", "--json"])
    assert json.loads(as_json.stdout)["tap"]["publish"] == {"deny": ">"}
    unknown = CliRunner().invoke(app, ["permissions", "--engine", "nobody"])
    assert (unknown.exit_code, "there is no engine or role 'nobody'" in unknown.output) == (2, True)
