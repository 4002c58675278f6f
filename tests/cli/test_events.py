from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from botplatform.bus.jetstream import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.cli import app
from botplatform.cli.events import Wanted
from botplatform.core.events import Position, PositionLeg, StateEvent, to_wire
from botplatform.core.json_form import from_json, to_json
from botplatform.settings import BusSettings, NatsSettings
from botplatform.testing import event, fill, market, order

ALERT = {"type": "notification.alert", "payload": {"text": "hello"}}


def decode(data: bytes, *options: str) -> Any:
    return CliRunner().invoke(app, ["events", "decode", *options], input=data)


def test_decode_prints_the_json_of_one_message() -> None:
    filled = fill("100.5")
    result = decode(to_wire(filled))
    assert result.exit_code == 0
    assert result.stdout == to_json(filled) + "\n"
    assert from_json(decode(to_wire(filled), "--pretty").stdout) == filled


@pytest.mark.parametrize("data", [b"", b"\xff\xff", b"{}", to_wire(fill())[:-3]])
def test_decode_refuses_what_is_no_event(data: bytes) -> None:
    result = decode(data)
    assert result.exit_code == 2
    assert result.stderr.startswith("botplatform: ")
    assert result.stderr.count("\n") == 1


def test_decode_loads_neither_settings_nor_the_bus() -> None:
    script = (
        "import sys\nfrom botplatform.cli import app\n"
        "try:\n    app(['events', 'decode'], prog_name='botplatform')\nexcept SystemExit:\n    pass\n"
        "print(sorted({'botplatform.settings', 'nats', 'yaml', 'rich'} & set(sys.modules)))"
    )
    data = to_wire(fill())
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True, timeout=60)
    assert done.stdout.decode().splitlines()[1:] == ["[]"]


def publish(text: str, *options: str) -> Any:
    return CliRunner().invoke(app, ["events", "publish", "--dry-run", *options], input=text)


def test_publish_fills_in_what_is_missing() -> None:
    result = publish(json.dumps(ALERT))
    made = from_json(result.stdout)
    assert (made.source, made.correlation_id, made.causation_id) == ("cli", made.id, "")
    assert made.timestamp_ns > 1_700_000_000_000_000_000


def test_publish_keeps_what_is_given() -> None:
    given = order(correlation_id="mine")
    assert from_json(publish(to_json(given)).stdout) == given


def test_publish_takes_one_event_per_line(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(f"{to_json(market())}\n\n{to_json(order())}\n")
    result = publish("", str(file))
    assert [from_json(line) for line in result.stdout.splitlines()] == [market(), order()]


def test_publish_takes_one_event_over_several_lines() -> None:
    assert from_json(publish(json.dumps(json.loads(to_json(market())), indent=2)).stdout) == market()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "standard input is empty"),
        ("{", "standard input: the text is not JSON"),
        ('{"type": "x.y"}', "standard input: type is 'x.y'"),
        (f"{json.dumps(ALERT)}\n{{\n", "standard input:2: the text is not JSON"),
        (f'{json.dumps(ALERT)}\n{{"type": "order.filled"}}\n', "standard input:2: payload is missing"),
    ],
)
def test_publish_refuses_what_is_wrong_with_its_place(text: str, says: str) -> None:
    result = publish(text)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"botplatform: {says}")
    assert result.stdout == ""


def test_publish_says_that_a_file_is_missing(tmp_path: Path) -> None:
    result = publish("", str(tmp_path / "none.json"))
    assert (result.exit_code, "No such file" in result.stderr) == (2, True)


def test_a_symbol_is_found_in_the_key_the_payload_and_the_positions() -> None:
    positions = event("state.updated", StateEvent(positions={"ETHUSDT": Position(long=PositionLeg("ETHUSDT"))}))
    wanted = Wanted(symbol="ETHUSDT")
    assert wanted.means(market("ETHUSDT"))
    assert wanted.means(positions)
    assert not wanted.means(market("BTCUSDT"))
    assert not Wanted(symbol="ETHUSDT", correlation_id="other").means(market("ETHUSDT"))


def test_tail_refuses_a_pattern_that_means_nothing() -> None:
    result = CliRunner().invoke(app, ["events", "tail", "orders.*"])
    assert (result.exit_code, "matches no event type" in result.stderr) == (2, True)


def test_a_bus_of_one_process_cannot_be_watched() -> None:
    result = CliRunner().invoke(app, ["--set", "bus.backend=memory", "events", "tail"])
    assert (result.exit_code, "set it to jetstream" in result.stderr) == (4, True)


def start(server: EmbeddedServer, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from botplatform.cli import main; main()", "events", *arguments]
    environ = os.environ | {"BOTPLATFORM_NATS__URL": server.url}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environ)


def finish(process: subprocess.Popen[str], text: str | None = None) -> list[Any]:
    out, err = process.communicate(text, timeout=60)
    assert (process.returncode, err) == (0, "")
    return [from_json(line) for line in out.splitlines()]


async def set_up(server: EmbeddedServer) -> None:
    bus = await JetStreamEventBus.connect(NatsSettings(url=server.url), BusSettings(), groups={"test": ("*",)})
    await bus.close()


def test_what_is_published_by_hand_is_seen_by_those_who_watch(server: EmbeddedServer) -> None:
    asyncio.run(set_up(server))
    first = [market("BTCUSDT", at_s=1), order(symbol="ETHUSDT", at_s=2), order(symbol="BTCUSDT", at_s=3)]
    assert finish(start(server, "publish"), "\n".join(map(to_json, first))) == first
    assert finish(start(server, "tail", "--from-start", "--limit", "3")) == first
    orders = start(server, "tail", "order.*", "--symbol", "BTCUSDT", "--from-start", "--limit", "2")
    assert orders.stdout is not None
    seen = [from_json(orders.stdout.readline())]
    later = [fill(symbol="ETHUSDT", at_s=4), market(at_s=5), fill(symbol="BTCUSDT", at_s=6)]
    finish(start(server, "publish"), "\n".join(map(to_json, later)))
    assert [*seen, *finish(orders)] == [first[2], later[2]]
    chain = start(server, "tail", "--correlation-id", first[1].correlation_id, "--from-start", "--limit", "1")
    assert finish(chain) == [first[1]]


def test_what_the_log_has_already_is_not_published_again_and_that_is_said(server: EmbeddedServer) -> None:
    asyncio.run(set_up(server))
    known, new = order(order_id="known", at_s=10), order(order_id="new", at_s=11)
    assert finish(start(server, "publish"), to_json(known)) == [known]
    out, err = start(server, "publish").communicate(f"{to_json(known)}\n{to_json(new)}", timeout=60)
    assert [from_json(line) for line in out.splitlines()] == [new]
    assert err.startswith(f"botplatform: the event {known.id} is in the log already, at ")
    assert err.count("\n") == 1


def test_nothing_is_published_when_the_log_has_another_event_with_an_id(server: EmbeddedServer) -> None:
    asyncio.run(set_up(server))
    known, other, new = order(order_id="a", at_s=12), fill(at_s=12, id=order(order_id="a", at_s=12).id), market(at_s=13)
    finish(start(server, "publish"), to_json(known))
    refused = start(server, "publish")
    out, err = refused.communicate(f"{to_json(new)}\n{to_json(other)}", timeout=60)
    assert (refused.returncode, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"botplatform: standard input:2: the log has another event with the id {known.id} at ")
    assert finish(start(server, "publish"), to_json(new)) == [new]


def test_an_id_that_is_given_twice_is_refused() -> None:
    result = publish(f"{to_json(order())}\n{to_json(order())}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("botplatform: standard input:2: the id ")


def test_without_a_server_tail_is_one_sentence() -> None:
    command = [sys.executable, "-c", "from botplatform.cli import main; main()", "events", "tail"]
    environ = os.environ | {"BOTPLATFORM_NATS__URL": "nats://127.0.0.1:1", "BOTPLATFORM_NATS__CONNECT_TIMEOUT_S": "0.3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("botplatform: cannot connect to NATS at nats://127.0.0.1:1")
    assert done.stderr.count("\n") == 1
