"""`botplatform nats-reload`: tell a NATS server beside us that its configuration has changed."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from botplatform.core.seam import Clock, SystemClock
from botplatform.settings import LogSettings
from botplatform.telemetry.logs import configure_logging

__all__ = ["digest_of", "nats_reload", "reload_on_change"]

EVERY_S: Final = 5.0

logger = logging.getLogger(__name__)


def nats_reload(
    watch: Annotated[
        list[Path], typer.Option(exists=True, help="File or folder of its configuration or certificates; repeatable.")
    ],
    pid_file: Annotated[Path, typer.Option(help="File with the server's process id, its pid_file.")],
    every: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = EVERY_S,
) -> None:
    """Send SIGHUP to a NATS server whenever its configuration has changed, until stopped.

    It runs beside the server, in the same process namespace and as the same user: users, permissions and
    certificates change without a restart. What the server cannot change while it runs, it says in its own log.
    """
    configure_logging(LogSettings())
    asyncio.run(reload_on_change(watch, pid_file, every))


async def reload_on_change(
    watch: Sequence[Path], pid_file: Path, every_s: float = EVERY_S, *, clock: Clock | None = None
) -> None:
    """Look every `every_s` seconds, without end. A server that is not there at the moment reads it when it starts."""
    clock = clock or SystemClock()
    known = digest_of(watch)
    while True:
        await clock.sleep(every_s)
        found = digest_of(watch)
        if found == known:
            continue
        known = found
        _tell(pid_file)


def _tell(pid_file: Path) -> None:
    try:
        os.kill(int(pid_file.read_text(encoding="ascii")), signal.SIGHUP)
    except (OSError, ValueError) as e:
        logger.warning("the configuration has changed, and the server in %s cannot be told: %s", pid_file, e)
    else:
        logger.warning("the configuration has changed: told the server to read it again")


def digest_of(watch: Sequence[Path]) -> bytes:
    """Return what changes with the content of any of the files, and of those right inside of the folders."""
    digest = hashlib.sha256()
    for path in watch:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in files:
            if file.is_file():  # through links: a ConfigMap is mounted as links to links, which change at once
                digest.update(f"{file}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.digest()
