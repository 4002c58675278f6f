"""Streams are backed up and restored by the user `setup`, as `nats stream backup` does, and the platform goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from pydantic import SecretStr

from botplatform.audit import audit_log
from botplatform.bootstrap import PARTITIONED, groups, open_platform
from botplatform.bus.jetstream import JetStreamEventBus, connect_nats, setup
from botplatform.bus.jetstream.permissions import as_config
from botplatform.bus.server import EmbeddedServer
from botplatform.cli.permissions import permissions_of
from botplatform.settings import Settings, load_settings

BACKED_UP = ("EVENTS", "DEAD_LETTERS", "KV_meta", "KV_trading", "KV_accounts", "KV_checkpoints", "KV_partitions")


def settings_for(user: str, url: str, tmp_path: Path) -> Settings:
    overrides = ["symbols=BTCUSDT", "feed.rate=40", "bus.partitions=2", f"storage.path={tmp_path}/store.sqlite"]
    settings = load_settings(None, overrides, environ={})
    nats = settings.nats.model_copy(update={"url": url, "user": user, "password": SecretStr("secret")})
    return settings.model_copy(update={"nats": nats})


@asynccontextmanager
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    plain = settings_for("setup", "nats://nowhere", tmp_path)
    users = [
        {"user": user, "password": "secret", "permissions": as_config(permissions_of(user, plain))}
        for user in ("botplatform", "setup")
    ]
    async with EmbeddedServer(config={"authorization": {"users": users}}) as made:
        yield made


async def set_up(settings: Settings) -> None:
    async with await connect_nats(settings.nats, name="setup") as connection:
        await setup(connection, settings.bus, groups(settings), PARTITIONED)


async def run_for_a_while(settings: Settings) -> int:
    async with open_platform(settings) as platform:
        before = await platform.bus.last_sequence()
        running = asyncio.create_task(platform.process.run())
        while await platform.bus.last_sequence() < before + 150:  # noqa: ASYNC110  # the server does it
            await asyncio.sleep(0.05)
        platform.process.stop()
        await running
        return await platform.bus.last_sequence()


async def clean(settings: Settings) -> list[str]:
    """Return the ids of the log, which nothing may be wrong with."""
    async with await JetStreamEventBus.connect(settings.nats, settings.bus) as bus:
        report = await audit_log(bus, signal_sets=["default"], grace_s=5.0)
        assert report.clean, report.to_dict()
        return [delivery.event.id async for delivery in bus.replay(["*"])]


async def ask(client: Client, subject: str, body: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        (await client.request(f"$JS.API.{subject}", json.dumps(body).encode(), 10)).data
    )
    assert "error" not in answer, answer
    return answer


async def backed_up(client: Client, stream: str) -> dict[str, Any]:
    chunks: list[bytes] = []
    done = asyncio.Event()

    async def arrived(message: Msg) -> None:
        if not message.data:
            done.set()
            return
        chunks.append(message.data)
        await message.respond(b"")

    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=arrived)
    found = await ask(client, f"STREAM.SNAPSHOT.{stream}", {"deliver_subject": inbox, "jsck": True})
    async with asyncio.timeout(20):
        await done.wait()
    await subscription.unsubscribe()
    return {"config": found["config"], "state": found["state"], "chunks": chunks}


async def restored(client: Client, stream: str, backup: dict[str, Any]) -> None:
    body = {"config": backup["config"], "state": backup["state"]}
    where = (await ask(client, f"STREAM.RESTORE.{stream}", body))["deliver_subject"]
    for chunk in [*backup["chunks"], b""]:
        answer = await client.request(where, chunk, 20)
        assert b'"error"' not in answer.data, answer.data


async def test_a_platform_goes_on_from_a_backup_on_another_server(tmp_path: Path) -> None:
    async with server(tmp_path) as first:
        settings, admin = (settings_for(user, first.url, tmp_path) for user in ("botplatform", "setup"))
        await set_up(admin)
        end = await run_for_a_while(settings)
        ids = await clean(settings)
        async with await connect_nats(admin.nats, name="setup") as connection:
            backups = {stream: await backed_up(connection.client, stream) for stream in BACKED_UP}
    async with server(tmp_path) as second:
        settings, admin = (settings_for(user, second.url, tmp_path) for user in ("botplatform", "setup"))
        async with await connect_nats(admin.nats, name="setup") as connection:
            for stream in BACKED_UP:
                await restored(connection.client, stream, backups[stream])
        await set_up(admin)
        assert await clean(settings) == ids
        assert await run_for_a_while(settings) >= end + 150
        after = await clean(settings)
        assert after[: len(ids)] == ids
        assert len(set(after)) == len(after)
