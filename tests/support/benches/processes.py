"""Processes of the platform, started as a person starts them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence

PATIENCE_S = 120.0


async def started(
    overrides: Sequence[str], *command: str, says: bytes = b"running", armed: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    """Start `botplatform` with these settings, and return when it says on its standard error that it runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "botplatform.cli", *(part for each in overrides for part in ("--set", each)), *command),
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("BOTPLATFORM_")}
        | dict(armed or {}),
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            said = await process.stderr.readline()
            assert says in said, said + await process.stderr.read()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    return process


def running(*engines: str) -> list[str]:
    """Return the command that runs these engines in one process; all of them, when none is named."""
    return ["run", *(part for name in engines for part in ("--engine", name))]
