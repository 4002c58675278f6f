"""A small HTTP server for questions without a body: on the caller's event loop, bounded, no framework.

h11 does the protocol. An application server (uvicorn, aiohttp) would bring threads, signal handlers or thirty times
the code into processes whose work is something else.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Final, NamedTuple

import h11

from botplatform.core.tasks import end
from botplatform.errors import SettingsError

__all__ = ["Handler", "Request", "Response", "serve_http"]

MAX_CONNECTIONS: Final = 64
"""Connections at once; further ones are closed."""
MAX_REQUEST: Final = 16_384
"""Bytes of a request's head, and of a body, which is read and ignored."""
IDLE_S: Final = 30.0
"""Seconds after which a connection that says nothing, or takes nothing, is closed."""
METHODS: Final = (b"GET", b"HEAD")
logger = logging.getLogger(__name__)


class Request(NamedTuple):
    """What was asked."""

    path: str
    """Without the query."""
    accept: str = ""
    """The header `Accept`."""


class Response(NamedTuple):
    """What is answered."""

    status: int
    body: bytes
    content_type: str = "application/json"


Handler = Callable[[Request], Awaitable[Response]]


@asynccontextmanager
async def serve_http(host: str, port: int, handler: Handler) -> AsyncIterator[int]:
    """Serve while inside; yields the port, which `port` 0 leaves to the system.

    Raises `SettingsError` when it cannot listen there.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            if len(tasks) <= MAX_CONNECTIONS:
                await _Conversation(reader, writer, handler).run()
        except (OSError, TimeoutError):
            logger.debug("a connection to the health port has ended", exc_info=True)
        except asyncio.CancelledError:
            if task.cancelling() == 0:  # pragma: no cover  # only the end of serving cancels
                raise
        finally:
            tasks.discard(task)
            writer.transport.abort()

    try:
        server = await asyncio.start_server(connected, host, port, limit=MAX_REQUEST)
    except OSError as e:
        raise SettingsError(_cannot_listen(host, port, e)) from e
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await end(*tasks)
        await server.wait_closed()


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"health.port {port} of {host} is in use: choose another one, or 0 to serve nothing"
    return f"cannot serve health.port {port} on health.host {host}: {error.strerror or error}; set them to what this machine has"


class _Conversation:
    """One connection: question and answer, until somebody closes it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
        self._reader = reader
        self._writer = writer
        self._handler = handler
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST)

    async def run(self) -> None:
        """Answer until the other side is done."""
        http = self._http
        try:
            while True:
                request = await self._next_request()
                if request is None:
                    return
                await self._send(*await self._answer(request))
                if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
                    return
                http.start_next_cycle()
        except h11.RemoteProtocolError as e:
            if http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._send(
                    Response(e.error_status_hint, _sentence("this is no HTTP request")), (), with_body=True
                )
        finally:
            with suppress(OSError, TimeoutError):
                self._writer.close()
                async with asyncio.timeout(1):
                    await self._writer.wait_closed()

    async def _next_request(self) -> h11.Request | None:
        """Read one request with its body; None at the end of the connection."""
        request: h11.Request | None = None
        body = 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    return request
                async with asyncio.timeout(IDLE_S):
                    self._http.receive_data(await self._reader.read(MAX_REQUEST))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += len(event.data)
                if body > MAX_REQUEST:
                    return request
            elif isinstance(event, h11.EndOfMessage):
                return request
            else:
                return None

    async def _answer(self, request: h11.Request) -> tuple[Response, Iterable[tuple[str, str]], bool]:
        if request.method not in METHODS:
            said = _sentence("only GET and HEAD are answered here")
            return Response(405, said), (("Allow", "GET, HEAD"),), True
        accept = b", ".join(value for name, value in request.headers if name == b"accept").decode("latin-1")
        path = request.target.decode("latin-1").partition("?")[0]
        try:
            response = await self._handler(Request(path, accept))
        except Exception:
            logger.exception("%s could not be answered", path)
            response = Response(500, _sentence("this failed: see the log of the process"))
        return response, (), request.method == b"GET"

    async def _send(self, response: Response, more: Iterable[tuple[str, str]], with_body: bool) -> None:  # noqa: FBT001  # what `_answer` says
        headers = [
            ("Content-Type", response.content_type),
            ("Content-Length", str(len(response.body))),
            ("Cache-Control", "no-store"),
            *more,
        ]
        parts = [h11.Response(status_code=response.status, headers=headers)]
        data = self._http.send(parts[0]) or b""
        if with_body:
            data += self._http.send(h11.Data(data=response.body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        self._writer.write(data)
        async with asyncio.timeout(IDLE_S):
            await self._writer.drain()


def _sentence(text: str) -> bytes:
    return f'{{"error": "{text}"}}\n'.encode()
