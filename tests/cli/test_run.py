"""`botplatform run` and `setup` as a person uses them: processes of their own, a real server, real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.core.events import Event
from botplatform.errors import ServerError
from botplatform.settings import BusSettings, NatsSettings
from botplatform.store.sqlite import SqliteEventStore

PATIENCE_S = 60.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "botplatform.cli", *arguments]


def clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}


def ask(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=folder, env=clean(), timeout=PATIENCE_S, check=False
    )


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=clean()
    )


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith("botplatform: ")
    for word in words:
        assert word in sentence, sentence


async def wait_for(url: str, enough: Callable[[list[Event]], bool], *patterns: str) -> list[Event]:
    """Wait until the log at a server has enough."""
    async with (
        asyncio.timeout(PATIENCE_S),
        await JetStreamEventBus.connect(NatsSettings(url=url), BusSettings()) as bus,
    ):
        while True:
            log = [delivery.event async for delivery in bus.replay(patterns or ["*"])]
            if enough(log):
                return log
            await asyncio.sleep(0.1)


def wait_for_stored(path: Path, event_type: str) -> None:
    """Wait until the store has one of a type."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        with SqliteEventStore(path, read_only=True) as store:
            if any(store.read([event_type])):
                return
        time.sleep(0.1)
    raise AssertionError(f"{event_type} was not stored")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_run_before_setup_says_to_set_up_and_setup_can_be_repeated(tmp_path: Path, server: EmbeddedServer) -> None:
    at = f"--set=nats.url={server.url}"
    refused(ask(tmp_path, "run", at), "botplatform setup")
    refused(ask(tmp_path, "halt", "--reason", "x", at), "botplatform setup")
    first = ask(tmp_path, "setup", at)
    assert (first.returncode, first.stderr) == (0, "")
    assert "created" in first.stdout
    second = ask(tmp_path, "setup", at)
    assert (second.returncode, second.stderr) == (0, "")
    assert "created" not in second.stdout
    assert "unchanged stream EVENTS" in second.stdout

    def log_id(text: str) -> str:
        return next(line for line in text.splitlines() if line.startswith("log id"))

    assert log_id(first.stdout) == log_id(second.stdout), "ids of the log are minted once"


def test_chosen_engines_run_until_sigterm_and_the_rest_later(tmp_path: Path, server: EmbeddedServer) -> None:
    at = (f"--set=nats.url={server.url}", "--set=log.level=warning", "--set=feed.rate=40")
    assert ask(tmp_path, "setup", at[0]).returncode == 0
    market = start(tmp_path, "run", "--engine", "market_data", "--engine", "signals", *at)
    seen = asyncio.run(wait_for(server.url, lambda log: len(log) > 100))
    assert {event.type.split(".")[0] for event in seen} == {"market", "signal", "system"}
    with_password = (f"--set=nats.url={server.url.replace('://', '://bob:hunter2@')}", *at[1:])
    rest = start(
        tmp_path,
        "run",
        *(f"--engine={name}" for name in ("strategy", "execution", "portfolio", "storage")),
        *with_password,
    )
    asyncio.run(wait_for(server.url, lambda log: len(log) > 0, "order.filled"))
    wait_for_stored(tmp_path / ".botplatform/store.sqlite", "order.filled")
    for process in (market, rest):
        process.send_signal(signal.SIGTERM)
    for process in (market, rest):
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
        assert "Traceback" not in errors
        assert "hunter2" not in errors
        assert json.loads(errors.splitlines()[0])["where"] == server.url


def test_with_a_server_of_its_own_the_first_order_comes_and_sigterm_ends_it(tmp_path: Path) -> None:
    process = start(tmp_path, "run", "--embedded", "--set=log.level=warning")
    assert process.stderr is not None
    first = json.loads(process.stderr.readline())
    assert first["message"].startswith("running market_data, signals")
    url = first["where"]
    log = asyncio.run(wait_for(url, lambda log: any(event.type == "order.submitted" for event in log)))
    ordered = next(event for event in log if event.type == "order.submitted")
    assert (ordered.timestamp_ns - log[0].timestamp_ns) / 1e9 < 10
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    assert errors == ""
    refused(ask(tmp_path, "events", "tail", f"--set=nats.url={url}", "--set=nats.connect_timeout_s=1"), url)
    assert (tmp_path / ".botplatform/store.sqlite").exists()


def test_what_cannot_run_is_one_sentence(tmp_path: Path) -> None:
    nowhere = f"nats://127.0.0.1:{free_port()}"
    refused(ask(tmp_path, "run", f"--set=nats.url={nowhere}", "--set=nats.connect_timeout_s=1"), nowhere)
    refused(ask(tmp_path, "setup", f"--set=nats.url={nowhere}", "--set=nats.connect_timeout_s=1"), nowhere)
    refused(ask(tmp_path, "run", "--engine", "clairvoyance", "--set=bus.backend=memory"), "clairvoyance", "signals")
    refused(ask(tmp_path, "run", "--set=exchange.kind=mars", "--set=bus.backend=memory"), "exchange.kind")
    refused(ask(tmp_path, "run", "--set=exchange.kind=no.such:One", "--set=bus.backend=memory"), "no.such")
    refused(ask(tmp_path, "run", "--set=exchange.kind=decimal:Decimal", "--set=bus.backend=memory"), "venue")
    refused(ask(tmp_path, "setup", "--set=bus.backend=memory"), "memory")
    corrupt = tmp_path / "corrupt.yaml"
    corrupt.write_bytes(b"\xff\xfe\0feed: {{{")
    refused(ask(tmp_path, "run", "--config", str(corrupt)), "corrupt.yaml")


def test_two_runs_with_a_server_of_their_own_in_one_place_are_refused(tmp_path: Path) -> None:
    first = start(tmp_path, "run", "--embedded", "--set=log.level=error")
    assert first.stderr is not None
    assert "running" in first.stderr.readline()
    refused(ask(tmp_path, "run", "--embedded"), ".botplatform/nats")
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=PATIENCE_S)
    assert first.returncode == 0, errors


async def test_a_port_in_use_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=str(port)) as refusal:
            async with EmbeddedServer(port=port):
                pass
    assert "\n" not in str(refusal.value)


def test_everything_in_one_process_without_a_server(tmp_path: Path) -> None:
    done = ask(
        tmp_path,
        "run",
        *("--set=bus.backend=memory", "--set=feed.pace=flat", "--set=feed.limit=600", "--set=log.level=warning"),
        "--set=execution.max_decision_age_s=60",
    )
    assert done.returncode == 0, done.stderr
    with SqliteEventStore(tmp_path / ".botplatform/store.sqlite", read_only=True) as store:
        assert "order.submitted" in {found.event.type for found in store.read(["order.*"])}
