"""`botplatform trace` as a command: from the store, from the log, from both, and while a chain grows."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from botplatform.bootstrap import PARTITIONED, groups
from botplatform.bus.jetstream import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.cli import app
from botplatform.cli.invocation import hoisted
from botplatform.core.events import Event
from botplatform.settings import Settings, load_settings
from botplatform.store.sqlite import SqliteEventStore
from botplatform.testing.builders import decision, market, order, signal

TICK = market(at_s=1.0)
SIGNAL = signal(cause=TICK, at_s=1.001)
DECISION = decision(cause=SIGNAL, at_s=1.002)
SUBMITTED = order("order.submitted", cause=DECISION, at_s=1.003, order_id="bp-feedbeef01")
ACCEPTED = order("order.accepted", cause=SUBMITTED, at_s=1.05, order_id="bp-feedbeef01")
FILLED = order("order.filled", cause=SUBMITTED, at_s=1.06, order_id="bp-feedbeef01")
CHAIN = [TICK, SIGNAL, DECISION, SUBMITTED, ACCEPTED, FILLED]
OTHER = market("ETHUSDT", at_s=2.0)


class Place(NamedTuple):
    """A server with a log, and a store beside it."""

    settings: Settings
    options: list[str]
    bus: JetStreamEventBus

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "botplatform.cli", *self.options, "trace", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")},
        )

    async def trace(self, *arguments: str) -> tuple[int, list[dict[str, Any]], str]:
        """Run the command here: starting a process takes longer than what it does."""
        given = [*self.options, "trace", *arguments, "--json"]
        result = await asyncio.to_thread(CliRunner().invoke, app, hoisted(given))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()], result.stderr

    def keep(self, *events: Event) -> None:
        """Write what the log has into the store, as the storage engine would."""
        with SqliteEventStore(self.settings.storage.path) as store:
            store.append([(event, store.last_sequence() + 1 + index) for index, event in enumerate(events)])


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with EmbeddedServer() as server:
        overrides = [f"nats.url={server.url}", f"storage.path={tmp_path}/store.sqlite", "nats.connect_timeout_s=2"]
        settings = load_settings(None, overrides, environ={})
        options = [part for each in overrides for part in ("--set", each)]
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
        ) as bus:
            yield Place(settings, options, bus)


def shape(objects: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    return [(each["event"]["type"], each["depth"], each["from"]) for each in objects]


async def test_a_chain_comes_from_the_store_and_its_end_from_the_log(place: Place) -> None:
    await place.bus.publish_all(CHAIN[:5])
    place.keep(*CHAIN[:4])
    code, objects, err = await place.trace("bp-feedbeef01", "--set", "tracing.ui_url=http://jaeger:16686")
    assert (code, err) == (0, "")
    assert {each["jaeger"] for each in objects} == {f"http://jaeger:16686/trace/{TICK.correlation_id}"}
    assert shape(objects) == [
        ("market.snapshot", 0, "store"),
        ("signal.snapshot", 1, "store"),
        ("strategy.decision", 2, "store"),
        ("order.submitted", 3, "store"),
        ("order.accepted", 4, "log"),
    ]
    assert [each["asked"] for each in objects] == [False, False, False, True, True]


async def test_without_a_store_the_log_is_enough_within_bounds(place: Place) -> None:
    await place.bus.publish_all(CHAIN)
    code, objects, err = await place.trace(FILLED.id)
    assert code == 0
    assert [each["event"]["id"] for each in objects] == [event.id for event in CHAIN]
    assert "only the log was looked in: there is no event store" in err
    code, objects, err = await place.trace(FILLED.id, "--scan", "2")
    assert [each["event"]["id"] for each in objects] == [ACCEPTED.id, FILLED.id]
    assert [each["cause_missing"] for each in objects] == [True, True]
    assert "only the newest 2 of 6 events of the log EVENTS" in err


async def test_without_a_server_the_store_is_enough(place: Place) -> None:
    place.keep(*CHAIN)
    nowhere = ("--set", "nats.url=nats://127.0.0.1:1")
    code, objects, err = await place.trace(TICK.correlation_id, *nowhere)
    assert (code, len(objects)) == (0, 6)
    assert "only the event store was looked in: no server listens at 127.0.0.1:1" in err
    code, objects, err = await place.trace(TICK.id, *nowhere, "--store", str(place.settings.storage.path))
    assert (code, len(objects), err) == (0, 6, "")
    code, _, err = await place.trace(TICK.id, *nowhere, "--set", "storage.path=/nonexistent/store.sqlite")
    assert code == 4
    assert "there is nothing to look in: there is no event store at /nonexistent/store.sqlite" in err


async def test_an_unknown_id_is_one_sentence_and_exit_code_1(place: Place) -> None:
    await place.bus.publish_all(CHAIN)
    place.keep(*CHAIN)
    code, objects, err = await place.trace("\x1b[2Jnothing")
    assert (code, objects) == (1, [])
    assert err.startswith("botplatform: nothing has the id \ufffd[2Jnothing: looked in the event store ")
    assert err.count("\n") == 1


async def test_a_chain_is_shown_as_it_grows_until_what_is_waited_for(place: Place) -> None:
    await place.bus.publish_all(CHAIN[:3])
    place.keep(*CHAIN[:2])
    process = await place.start(TICK.correlation_id, "--until", "order.filled")
    assert process.stdout is not None
    seen = b""
    while b"strategy.decision" not in seen:
        seen += await asyncio.wait_for(process.stdout.readline(), 60)
    for event in (OTHER, *CHAIN[3:]):
        await place.bus.publish(event)
    rest, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err) == (0, b"")
    lines = (seen + rest).decode().splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["chain", "3"]
    types = [next(word for word in line.split() if "." in word and word[0].isalpha()) for line in lines[3:]]
    assert types == [event.type for event in CHAIN]
    assert "ETHUSDT" not in "".join(lines)


async def test_a_chain_that_does_not_exist_yet_can_be_waited_for_but_not_for_ever(place: Place) -> None:
    code, objects, _ = await place.trace("bp-feedbeef01", "--until", "order.filled", "--timeout", "0.2")
    assert (code, objects) == (1, [])
    await place.bus.publish_all(CHAIN[:3])
    place.keep(*CHAIN[:2])
    waiting = asyncio.create_task(place.trace("bp-feedbeef01", "--until", "order.filled", "--timeout", "60"))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await place.bus.publish_all([OTHER, *CHAIN[3:]])
    code, objects, _ = await waiting
    assert code == 0
    assert [each["event"]["id"] for each in objects] == [event.id for event in CHAIN]
    assert [each["depth"] for each in objects] == [0, 1, 2, 3, 4, 4]


async def test_following_needs_the_log(place: Place) -> None:
    code, _, err = await place.trace("x", "--follow", "--store", str(place.settings.storage.path))
    assert (code, "--follow needs the log" in err) == (2, True)


HEAVY = {"botplatform.engines", "botplatform.runtime", "botplatform.bus", "botplatform.bootstrap", "botplatform.report"}
HEAVY |= {"nats", "opentelemetry", "prometheus_client", "yaml", "numpy", "apprise", "plotly"}


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (["--help"], HEAVY | {"pydantic_settings", "botplatform.settings"}),
        ([FILLED.id, "--store", "kept.sqlite"], HEAVY | {"rich"}),
        ([FILLED.id, "--set", "storage.path=kept.sqlite", "--set", "nats.url=nats://127.0.0.1:9"], HEAVY | {"rich"}),
    ],
    ids=["help", "store", "no server"],
)
def test_the_command_imports_only_what_it_needs(tmp_path: Path, arguments: list[str], unneeded: set[str]) -> None:
    with SqliteEventStore(tmp_path / "kept.sqlite") as store:
        store.append([(event, index) for index, event in enumerate(CHAIN, 1)])
    script = f"""
        import sys
        from botplatform.cli import main
        sys.argv[1:] = ["trace", *{arguments!r}]
        try:
            main()
        except SystemExit as e:
            assert not e.code, e.code
        print("imported:", sorted({unneeded!r} & set(sys.modules)))
    """
    names = ("BOTPLATFORM_", "OTEL_", "FORCE_COLOR", "TTY_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path, env=environ)
    assert done.stdout.splitlines()[-1] == "imported: []"
    assert "ID" in done.stdout or FILLED.id[:8] in done.stdout
