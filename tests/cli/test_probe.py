"""`botplatform probe` against a running platform: what it prints, and what it refuses."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from botplatform.bootstrap import ENGINES, PARTITIONED, groups, open_platform
from botplatform.bus.jetstream import JetStreamEventBus
from botplatform.bus.server import EmbeddedServer
from botplatform.cli import app
from botplatform.settings import load_settings


async def test_it_prints_the_chain_and_who_has_handled_it(tmp_path: Path) -> None:
    async with EmbeddedServer() as server:
        settings = load_settings(
            None,
            [f"nats.url={server.url}", "bus.partitions=2", f"storage.path={tmp_path}/store.sqlite"],
            environ={},
        )
        async with await JetStreamEventBus.connect(
            settings.nats, settings.bus, groups=groups(settings), partitioned=PARTITIONED
        ):
            pass
        command = [sys.executable, "-m", "botplatform.cli", "--set", f"nats.url={server.url}"]
        options = ["--set", "bus.partitions=2", "probe", "--timeout", "40", "--without", "storage"]
        engines = [engine for engine in ENGINES if engine != "storage"]
        async with open_platform(settings, engines) as platform:
            running = asyncio.create_task(platform.process.run())
            process = await asyncio.create_subprocess_exec(
                *command, *options, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            out, err = (text.decode() for text in await process.communicate())
            platform.process.stop()
            await running
    assert process.returncode == 0, err
    lines = out.splitlines()
    assert re.fullmatch(r"chain    [0-9a-f]{32}", lines[0])
    types = re.findall(r"(?m)^ *[\d.]+ ms  (\S+) +by (\S+)", out)
    assert types[:4] == [
        ("market.snapshot", "probe"),
        ("signal.snapshot", "signals"),
        ("strategy.decision", "probe"),
        ("order.denied", "execution"),
    ]
    assert re.search(r"(?m)^handled  by .*execution-\d.*portfolio", out)
    assert lines[-1] == "passed   every engine has handled the chain, and no order was made"


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["probe", "--without", "signals"], "--without signals cannot be", 2),
        (["probe", "--without", "nothing"], "--without nothing cannot be", 2),
        (["--set", "bus.backend=memory", "probe"], "a probe needs jetstream", 2),
        (["--set", "symbols=BOTPLATFORM-PROBE", "probe"], "take it out, or a probe would trade", 2),
        (["--set", "nats.url=nats://127.0.0.1:1", "--set", "nats.connect_timeout_s=1", "probe"], "127.0.0.1:1", 4),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(arguments: list[str], says: str, code: int) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == code
    assert says in done.stderr
