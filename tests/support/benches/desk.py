"""A running platform with a restless strategy, and the command line beside it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from botplatform.bus.jetstream.bus import JetStreamEventBus
from botplatform.core.events import Event
from botplatform.settings import BusSettings, NatsSettings

PATIENCE_S = 60.0
STRATEGY = '''
from botplatform.strategies import Decided, Strategy, View, close_long, open_long

class Restless(Strategy):
    """Opens, then closes what it holds, again and again."""

    def decide(self, view: View) -> Decided:
        position = view.position.long
        if position.quantity > 0 and position.exposure > 0:
            return close_long(position.quantity)
        return open_long("0.01") if not position.exposure else None
'''


class Desk:
    """Processes that share a log, for the symbols that are given, and the commands that somebody gives beside them."""

    def __init__(self, folder: Path, url: str, *symbols: str) -> None:
        self.folder, self.url, self.symbols = folder, url, symbols
        (folder / "restless.py").write_text(STRATEGY)
        self.processes: list[subprocess.Popen[str]] = []
        assert self.say("setup").returncode == 0

    def _environment(self) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}
        return clean | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.folder), clean.get("PYTHONPATH", "")])),
            "BOTPLATFORM_NATS__URL": self.url,
            "BOTPLATFORM_SYMBOLS": ",".join(self.symbols),
            "BOTPLATFORM_STRATEGIES": '[{"name": "restless", "use": "restless:Restless"}]',
            "BOTPLATFORM_FEED__RATE": "20",
            "BOTPLATFORM_EXECUTION__MAX_DECISION_AGE_S": "60",
            "BOTPLATFORM_EXCHANGE__LATENCY_MS": "20",
            "BOTPLATFORM_EXCHANGE__LATENCY_JITTER_MS": "0",
            "BOTPLATFORM_EXCHANGE__PARTIAL_FILL_SHARE": "0",
            "BOTPLATFORM_STORAGE__PATH": str(self.folder / "store.sqlite"),
            "BOTPLATFORM_LOG__LEVEL": "error",
            "COLUMNS": "200",
        }

    def start(self, *engines: str) -> subprocess.Popen[str]:
        """Start a process of these engines; of all, when none is named."""
        arguments = [part for name in engines for part in ("--engine", name)]
        process = subprocess.Popen(
            [sys.executable, "-m", "botplatform.cli", "run", *arguments],
            cwd=self.folder,
            env=self._environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def stop(self, *processes: subprocess.Popen[str]) -> None:
        """End processes in order, one after the other."""
        for process in processes:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=PATIENCE_S)
            assert process.returncode == 0, errors

    def close(self) -> None:
        """Kill what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()

    def say(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Give a command, and return what came of it."""
        return subprocess.run(
            [sys.executable, "-m", "botplatform.cli", *arguments],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def wait_for(self, enough: Callable[[list[Event]], bool], *patterns: str, after: int = 0) -> list[Event]:
        """Wait until what the log has of these patterns behind a sequence is as it should be, and return that."""

        async def wait() -> list[Event]:
            async with asyncio.timeout(PATIENCE_S), await self._bus() as bus:
                while True:
                    log = [found.event async for found in bus.replay(patterns, after=after)]
                    if enough(log):
                        return log
                    await asyncio.sleep(0.1)

        return asyncio.run(wait())

    def last(self) -> int:
        """Return the newest sequence of the log."""

        async def read() -> int:
            async with await self._bus() as bus:
                return await bus.last_sequence()

        return asyncio.run(read())

    async def _bus(self) -> JetStreamEventBus:
        return await JetStreamEventBus.connect(NatsSettings(url=self.url), BusSettings())
