"""The connection to NATS: reconnects for ever, says what went wrong, and never repeats what it had not sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Final, Self

import nats.errors
from nats.aio.client import Server
from nats.aio.msg import Msg

from botplatform.bus.jetstream.credentials import (
    connect_options,
    explain,
    hopeless,
    without_credentials,
)
from botplatform.bus.jetstream.direct import DirectClient
from botplatform.core.seam import Clock, SystemClock, jitter
from botplatform.core.tasks import end
from botplatform.errors import BusError, PermissionDenied, StreamError
from botplatform.settings import NatsSettings

__all__ = ["ApiError", "Connection", "connect_nats"]

OLDEST_SERVER: Final = (2, 14)
"""The first version with `CONSUMER.RESET`, which an ordered takeover needs."""
PENDING_BYTES: Final = 16 * 1024**2
"""Bytes that may wait for the socket before publishing waits for it."""
RECONNECT_WAIT_S: Final = 2.0
"""Longest pause between two attempts to reconnect, before jitter."""
RETRY_S: Final = 0.05
NOT_FOUND: Final = 404
GOODBYE_S: Final = 0.1
"""Seconds to wait for a socket to close whose server refused us."""
LAME_PENALTY: Final = 10
"""Failures that a server counts for which said that it is about to stop: others are tried first."""
_VIOLATION: Final = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)

logger = logging.getLogger(__name__)


class ApiError(StreamError):
    """JetStream refused a request."""

    def __init__(self, message: str, *, status: int, error: int) -> None:
        super().__init__(message)
        self.status = status
        self.error = error


class Connection:
    """A connection to NATS and its JetStream API. Made by `connect_nats`; to be closed, or used as a context."""

    def __init__(self, settings: NatsSettings, clock: Clock | None = None) -> None:
        self.client = DirectClient()
        self.clock = clock or SystemClock()
        self.connected = asyncio.Event()
        """Set while there is a connection."""
        self.on_lost: list[Callable[[], None]] = []
        """Called when the connection is lost; it comes back, unless `on_closed` is called."""
        self.reconnects = 0
        """How often the connection came back."""
        self.on_back: list[Callable[[], None]] = []
        """Called when the connection is back, maybe to another server."""
        self.on_closed: list[Callable[[BusError], None]] = []
        """Called when it was closed by the other side, for good."""
        self.on_denied: list[Callable[[PermissionDenied], None]] = []
        """Called when the server refuses to let this user publish or subscribe somewhere."""
        self.timeout_s = settings.request_timeout_s
        self.name = ""
        """Who is connected, for people: an engine, a command."""
        self._settings = settings
        self._opening = False
        self._closing = False
        self._denied: dict[str, PermissionDenied] = {}
        self._asking: dict[str, set[asyncio.Future[None]]] = {}
        self._lame: set[str] = set()
        self._last_error: Exception | None = None

    @property
    def where(self) -> str:
        """The address, without credentials."""
        return without_credentials(self._settings.url)

    async def __aenter__(self) -> Self:
        """Return itself: it is connected already."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    async def open(self, name: str) -> None:
        """Connect; raise `BusError` when the server cannot be reached, refuses us, is too old or has no JetStream."""
        settings = self._settings
        self.name = name
        self.client.tls_required = settings.tls_required
        options = connect_options(settings, self.clock)
        attempt = self.client.connect(
            [one.strip() for one in settings.url.split(",")],
            name=name,
            inbox_prefix=settings.inbox_prefix or f"_INBOX_{name}",
            error_cb=self._error,
            disconnected_cb=self._lost,
            reconnected_cb=self._back,
            closed_cb=self._closed,
            lame_duck_mode_cb=self._lame_duck,
            connect_timeout=settings.connect_timeout_s,  # type: ignore[arg-type]  # seconds may be a float
            max_reconnect_attempts=-1,
            reconnect_time_wait=RETRY_S,  # type: ignore[arg-type]  # seconds may be a float
            reconnect_to_server_handler=self._next_server,
            ping_interval=10,
            max_outstanding_pings=2,
            pending_size=PENDING_BYTES,
            **options,
        )
        self._opening = True
        try:
            await self._within(attempt, settings.connect_timeout_s)
        except (OSError, ValueError, nats.errors.Error, TimeoutError) as e:
            await self._give_up()
            reason = self._last_error if isinstance(e, TimeoutError) and self._last_error is not None else e
            advice = "" if hopeless(reason) else "; start a server there, or set nats.url"
            raise BusError(f"cannot connect to NATS at {self.where}: {explain(reason)}{advice}") from e
        finally:
            self._opening = False
        self.connected.set()
        try:
            await self._check_server()
        except BaseException:
            await self.close()
            raise

    async def _within(self, attempt: Coroutine[Any, Any, None], timeout_s: float) -> None:
        """Wait for an attempt to connect, and end it when its time is over."""
        connecting = asyncio.create_task(attempt, name="connect")
        try:
            done, _ = await asyncio.wait([connecting], timeout=timeout_s)
            if not done:
                raise TimeoutError
            connecting.result()
        finally:
            await end(connecting)

    async def _give_up(self) -> None:
        """Close what never was open."""
        self._closing = True
        if (transport := self.client._transport) is not None:  # noqa: SLF001  # nats-py leaves the socket open
            transport.close()  # type: ignore[no-untyped-call]  # nats-py leaves it out
            self.client._transport = None  # noqa: SLF001  # it would wait without end for a failed handshake
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await transport.wait_closed()  # type: ignore[no-untyped-call]  # see above
        with contextlib.suppress(AssertionError):  # nats-py cannot close what it never began to open
            await self.client.close()

    async def close(self) -> None:
        """Send what waits, and close."""
        self._closing = True
        if self.client.is_connected:
            try:
                await self.client.flush(2)
            except (nats.errors.Error, OSError) as e:
                logger.warning("the last messages to NATS may not have been sent: %s", _reason(e))
        with contextlib.suppress(OSError):  # lost at this very moment
            await self.client.close()

    async def api(
        self, operation: str, body: Mapping[str, Any] | None = None, *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Ask JetStream; raise `ApiError` when it refuses and `BusError` when it does not answer."""
        data = json.dumps(body).encode() if body else b""
        try:
            answer = await self.request(f"$JS.API.{operation}", data, timeout_s=timeout_s)
        except (nats.errors.Error, TimeoutError) as e:
            raise BusError(f"JetStream at {self.where} did not answer {operation}: {_reason(e)}") from e
        reply: dict[str, Any] = json.loads(answer.data)
        if "error" in reply:
            error = reply["error"]
            raise ApiError(
                f"JetStream at {self.where} refused {operation}: {error.get('description', 'no reason given')}",
                status=int(error.get("code", 0)),
                error=int(error.get("err_code", 0)),
            )
        return reply

    async def request(
        self, subject: str, data: bytes, *, timeout_s: float | None = None, headers: dict[str, str] | None = None
    ) -> Msg:
        """Ask whoever listens there; raise what nats-py raises, and `PermissionDenied` as soon as the server says so.

        Raises as soon as the connection is lost: no answer comes on the next one.
        """
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._asking.setdefault(subject.lower(), set())
        waiting.add(refused)
        timeout = timeout_s or self.timeout_s
        asking = asyncio.create_task(self.client.request(subject, data, timeout=timeout, headers=headers))
        try:
            await asyncio.wait((asking, refused), return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                return asking.result()
            return refused.result()  # type: ignore[return-value]  # it only ever raises
        finally:
            asking.cancel()
            if not refused.cancel() and not refused.cancelled():
                refused.exception()  # both came at once: it is known
            waiting.discard(refused)
            if not waiting:
                self._asking.pop(subject.lower(), None)

    def check_subscription(self, subject: str) -> None:
        """Raise `PermissionDenied` when the server refused a subscription; it has said so once it was flushed."""
        denied = self._denied.get(subject.lower())
        if denied is not None:
            raise denied

    async def api_or_none(self, operation: str, body: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """Ask JetStream for something that need not exist: None when it does not."""
        try:
            return await self.api(operation, body)
        except ApiError as e:
            if e.status == NOT_FOUND:
                return None
            raise

    async def _check_server(self) -> None:
        version = self.client.connected_server_version
        if (version.major, version.minor) < OLDEST_SERVER:
            raise BusError(
                f"the NATS server at {self.where} is version {version.major}.{version.minor}.{version.patch}: "
                f"{OLDEST_SERVER[0]}.{OLDEST_SERVER[1]} or newer is needed"
            )
        try:
            await self.api("INFO")
        except ApiError as e:
            raise BusError(f"JetStream is not usable at {self.where}: {e}") from e
        except PermissionDenied:
            raise
        except BusError as e:
            raise BusError(
                f"the NATS server at {self.where} has no JetStream, or does not let this user use it: "
                "start it with `nats-server -js`"
            ) from e

    def _next_server(self, servers: list[Server], _: dict[str, Any]) -> tuple[Server, float]:
        """Choose the server that failed least, and the seconds to wait: more with each failure, spread at random."""
        transport = self.client._transport  # noqa: SLF001  # nats-py leaves the socket of a failed handshake open
        if transport is not None:
            transport.close()  # type: ignore[no-untyped-call]  # so it is there
        server = min(servers, key=lambda one: one.reconnects + LAME_PENALTY * (one.uri.netloc in self._lame))
        return server, min(RECONNECT_WAIT_S, RETRY_S * 2 ** min(server.reconnects, 10)) * (0.5 + jitter())

    async def _error(self, error: Exception) -> None:
        violation = _VIOLATION.search(str(error))
        if violation is not None:
            self._deny(violation[1].lower(), violation[2])
            return
        if self._last_error is None or not hopeless(self._last_error) or hopeless(error):
            self._last_error = error
        if self._opening and hopeless(error) and len(self.client.servers) == 1:
            raise error  # nats-py would try again until the time is over
        level = logging.DEBUG if self._opening else logging.WARNING  # what ends the attempt is raised, in one sentence
        logger.log(level, "nats: %s", explain(error))

    def _deny(self, kind: str, subject: str) -> None:
        """Fail what the server refused: it says only that it did, in lower case, and never answers."""
        waiting = self._asking.get(subject.lower(), set()) if kind == "publish" else set()
        mine = subject.startswith(self.client._inbox_prefix.decode().lower())  # noqa: SLF001  # no other way
        if kind == "subscription" and mine:  # then nobody gets an answer
            waiting = set().union(*self._asking.values())
        who = "NAME" if self.name == "botplatform" else self.name
        verb = "publish" if kind == "publish" else "subscribe"
        error = PermissionDenied(
            f"the NATS server at {self.where} does not let this user {verb} to {subject}: give it the permissions that "
            f"`botplatform permissions --engine {who}` prints",
            subject=subject,
        )
        logger.error("%s", error)
        if kind == "subscription":
            self._denied[subject.lower()] = error
        _refuse(waiting, error)
        for call in self.on_denied:
            call(error)

    async def _lame_duck(self) -> None:
        """Move away from a server that is about to stop; where there is no other, wait until it is back."""
        current = self.client.connected_url
        if current is None:
            return
        self._lame.add(current.netloc)
        others = [one for one in self.client.servers if one.netloc not in self._lame]
        logger.warning(
            "the NATS server %s is about to stop: %s",
            without_credentials(current.geturl()),
            "moving to another" if others else "waiting until it is back",
        )
        if others:
            await self.client.force_reconnect()

    async def _lost(self) -> None:
        self.connected.clear()
        # What had not left yet would be sent first on the next connection, before what was lost on this one:
        # out of order. Whoever needs it sends it again.
        self.client._pending = []  # noqa: SLF001  # nats-py has no other way to drop it
        self.client._pending_data_size = 0  # noqa: SLF001  # see above
        if self._closing:
            return
        logger.warning("lost the connection to NATS at %s: reconnecting", self.where)
        _refuse(
            set().union(*self._asking.values()), nats.errors.Error("the connection was lost before the answer came")
        )
        for call in self.on_lost:
            call()

    async def _back(self) -> None:
        logger.warning("reconnected to NATS at %s", self.where)
        self.reconnects += 1
        self.connected.set()
        if (current := self.client.connected_url) is not None:
            self._lame.discard(current.netloc)
        self._denied.clear()
        for call in self.on_back:
            call()

    async def _closed(self) -> None:
        if self._closing:
            return
        reason = explain(self.client.last_error or self._last_error or nats.errors.ConnectionClosedError())
        error = BusError(f"NATS at {self.where} closed the connection for good: {reason}; restart when that is solved")
        logger.error("%s", error)
        for call in self.on_closed:
            call(error)


async def connect_nats(settings: NatsSettings, *, name: str = "botplatform", clock: Clock | None = None) -> Connection:
    """Connect to NATS; it then reconnects for ever. Raises `BusError` within `connect_timeout_s` when that fails."""
    connection = Connection(settings, clock)
    await connection.open(name)
    return connection


def _refuse(waiting: set[asyncio.Future[None]], error: Exception) -> None:
    for refused in waiting:
        if not refused.done():
            refused.set_exception(error)


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
