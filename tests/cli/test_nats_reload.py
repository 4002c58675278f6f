"""A NATS server learns of changed users without a restart."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from botplatform.bus.jetstream.connection import Connection, connect_nats
from botplatform.bus.server import EmbeddedServer
from botplatform.cli.nats_reload import digest_of, reload_on_change
from botplatform.errors import BusError
from botplatform.settings import NatsSettings


def user(name: str) -> dict[str, str]:
    """Return a user in the server's configuration."""
    return {"user": name, "password": "secret"}


async def test_a_user_that_is_added_can_connect_without_a_restart(tmp_path: Path) -> None:
    pid_file, config = tmp_path / "nats.pid", tmp_path / "server" / "server.conf"
    given = {"authorization": {"users": [user("old")]}, "pid_file": str(pid_file)}
    async with EmbeddedServer(tmp_path / "server", config=given) as server:
        telling = asyncio.create_task(reload_on_change([config], pid_file, 0.05))
        fresh = NatsSettings.model_validate({"url": server.url, "user": "new", "password": "secret"})
        with pytest.raises(BusError, match="refused the credentials"):
            await connect_nats(fresh)
        pid = server.pid
        changed = json.loads(config.read_text()) | {"authorization": {"users": [user("old"), user("new")]}}
        changed["listen"] = server.url.removeprefix("nats://")
        config.write_text(json.dumps(changed))
        async with await _patiently(fresh):
            assert server.pid == pid
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


async def _patiently(settings: NatsSettings) -> Connection:
    for _ in range(200):
        try:
            return await connect_nats(settings)
        except BusError:
            await asyncio.sleep(0.05)
    return await connect_nats(settings)


async def test_a_server_that_is_gone_is_not_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "conf").write_text("a")
    telling = asyncio.create_task(reload_on_change([tmp_path / "conf"], tmp_path / "no.pid", 0.01))
    await asyncio.sleep(0.05)
    (tmp_path / "conf").write_text("b")
    for _ in range(2000):
        if "cannot be told" in caplog.text:
            break
        await asyncio.sleep(0.01)
    assert "cannot be told" in caplog.text
    assert not telling.done()
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)


def test_what_a_link_leads_to_counts(tmp_path: Path) -> None:
    """A mounted ConfigMap changes by one link of its folder."""
    for version in ("1", "2"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "users.conf").write_text(version)
    data, file = tmp_path / "..data", tmp_path / "users.conf"
    data.symlink_to(tmp_path / "..1")
    file.symlink_to(Path("..data") / "users.conf")
    before = digest_of([tmp_path])
    data.unlink()
    data.symlink_to(tmp_path / "..2")
    assert digest_of([tmp_path]) != before
