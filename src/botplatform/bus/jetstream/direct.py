"""The short way through the client of nats-py, for what comes by the thousand.

nats-py checks and assembles each message's headers when it sends, takes them apart when it receives, and hands every
message through a queue to a task: more work than all the rest of a delivery. Here a message is sent as one ready
command, at once where the caller has just looked whether it may be, and one that arrives is handed over where it is
parsed. Everything else (connecting, reconnecting,
subscribing again, requests) is nats-py's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from botplatform.bus.jetstream.credentials import GuardedClient
from botplatform.core.crash_points import crash_point

__all__ = ["DirectClient", "Receive", "Status", "parse_status"]

PING: Final = b"PING\r\n"
UNDELIVERED_MS: Final = 20_000
"""Milliseconds after which the kernel gives up a connection that does not acknowledge what was sent."""
UNACKNOWLEDGED: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)
"""The option of Linux that bounds this; elsewhere pings do, which are slower."""
AT_ONCE: Final = struct.pack("ii", 1, 0)
"""Close without sending what waits (the option SO_LINGER with no time)."""
Receive: TypeAlias = Callable[[bytes, bytes, bytes, bytes | None], None]
"""Called with subject, reply, body and headers as they came over the wire; it must not wait."""


class Status(NamedTuple):
    """What a message of the server says that has no body."""

    code: str = ""
    description: str = ""
    pending_messages: int | None = None
    """How many messages of an ended pull did not come; None where that is not said."""


def parse_status(headers: bytes | None) -> Status:
    """Take the headers of a status message apart; an empty status for any other."""
    first, *others = (headers or b"").decode(errors="replace").split("\r\n")
    _, _, said = first.partition(" ")
    code, _, description = said.strip().partition(" ")
    named = dict(line.split(":", 1) for line in others if ":" in line)
    pending = named.get("Nats-Pending-Messages", "").strip()
    description = description.strip() or named.get("Description", "").strip()
    return Status(code, description, int(pending) if pending.isdigit() else None)


class _LookingSocket:
    """A socket that looks, in the last step before the kernel has them, whether bytes may leave."""

    def __init__(self, wrapped: socket.socket, look: Callable[[], None]) -> None:
        self._wrapped = wrapped
        self._look = look

    def send(self, data: bytes) -> int:
        """Send what the kernel takes of it."""
        self._look()
        return self._wrapped.send(data)

    def sendmsg(self, buffers: Sequence[bytes]) -> int:
        """Send what the kernel takes of them."""
        self._look()
        return self._wrapped.sendmsg(buffers)

    def __getattr__(self, name: str) -> Any:  # whatever else a socket has
        return getattr(self._wrapped, name)


class DirectClient(GuardedClient):
    """The client of nats-py with a short way in and a short way out."""

    def __init__(self) -> None:
        super().__init__()
        self._receivers: dict[int, Receive] = {}
        self._may_leave: Callable[[], bool] | None = None

    async def listen(self, subject: str, receive: Receive) -> Subscription:
        """Subscribe; `receive` is called for each message as it is parsed, until `unsubscribe` of what is returned."""
        number = self._sid + 1  # known before the server hears of it: nothing can come past it
        self._receivers[number] = receive
        try:
            return await self.subscribe(subject, cb=_unexpected)
        except BaseException:
            self._receivers.pop(number, None)
            raise

    def send(self, subject: str, body: bytes, *, reply: str = "") -> None:
        """Put a message without headers behind what waits for the socket; raises what `check_open` raises."""
        self.check_open()
        self._append([b"%b%b\r\n" % (f"PUB {subject} {reply} {len(body)}\r\n".encode(), body)])

    def _append(self, commands: Sequence[bytes]) -> None:
        size = sum(map(len, commands))
        self._pending.extend(commands)
        self._pending_data_size += size
        self._count(len(commands), size)
        if self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    def publication(self, subject: str, reply: str, headers: str, body: bytes) -> bytes:
        """Return the command that publishes, for `write_now`; the headers are a whole block in ASCII.

        That has its first line and the empty one. Raises `MaxPayloadError` when the server takes less.
        """
        size = len(headers) + len(body)
        if size > self._max_payload:
            raise nats.errors.MaxPayloadError
        return b"%b%b\r\n" % (f"HPUB {subject} {reply} {len(headers)} {size}\r\n{headers}".encode(), body)

    def write_now(self, commands: Sequence[bytes], may_leave: Callable[[], bool] | None = None) -> bool:
        """Hand commands to the socket, behind what waits for it, before this returns; raises what `check_open` raises.

        `may_leave` is asked before that; False: they may not, and nothing was sent. It is asked again where the kernel
        takes them, and for each rest that it takes later: then the connection is given up, with all that it holds.
        """
        self.check_open()
        if self._socket_writer is None:  # a WebSocket, which sends when it is flushed
            self._append(commands)
            return True
        data = b"".join([*self._pending, *commands])
        crash_point("write.before")
        if may_leave is not None and not may_leave():
            return False
        self._pending, self._pending_data_size = [], 0
        assert self._transport is not None  # it is connected
        self._may_leave = may_leave
        self._transport.write(data)
        self.is_drained()
        self._count(len(commands), sum(map(len, commands)))
        return True

    def _look(self) -> None:
        """Give the connection up instead of sending what may not be sent any more."""
        if self._may_leave is None:
            return
        crash_point("socket.before")
        if not self._may_leave():
            self._drop_unsent()
            raise ConnectionAbortedError("the right to publish has lapsed before the socket took what it was given")

    def is_drained(self) -> bool:
        """Tell whether the socket has taken all that it was given; then nothing is asked any more before it leaves."""
        if self.unsent_bytes:
            return False
        if self.is_connected:  # else it is about to be given up
            self._may_leave = None
        return True

    @property
    def unsent_bytes(self) -> int:
        """Bytes that were handed over and that the socket has not taken, whether they are encrypted yet or not."""
        writer, bare = self._socket_writer, self._bare_writer
        if writer is None or bare is None or not self.is_connected:
            return 0
        size = bare.transport.get_write_buffer_size()
        return size if writer is bare else size + writer.transport.get_write_buffer_size()

    def check_open(self) -> None:
        """Raise where nothing can be sent.

        `ConnectionClosedError`, `ConnectionDrainingError`, and `OutboundBufferLimitError` while there is no
        connection: nothing is kept for the next one, because what was lost on this one has to go first.
        """
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        if self.is_draining_pubs:
            raise nats.errors.ConnectionDrainingError
        if not self.is_connected or self._flush_queue is None:
            raise nats.errors.OutboundBufferLimitError

    def _count(self, messages: int, size: int) -> None:
        self.stats["out_msgs"] += messages
        self.stats["out_bytes"] += size

    @property
    def _socket_writer(self) -> asyncio.StreamWriter | None:
        return getattr(self._transport, "_io_writer", None)

    @property
    def _bare_writer(self) -> asyncio.StreamWriter | None:
        """The writer below that, where TLS is between; else the same."""
        return getattr(self._transport, "_bare_io_writer", None)

    async def _process_connect_init(self) -> None:
        """Bound the time for which the kernel keeps trying to deliver: what comes later may not come at all."""
        self._may_leave = None
        writer = self._socket_writer
        if writer is not None:
            if UNACKNOWLEDGED is not None:
                writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, UNACKNOWLEDGED, UNDELIVERED_MS)
            transport: Any = writer.transport
            if hasattr(transport, "_sock_fd"):  # it calls the socket itself, which that of Windows does not
                transport._sock = _LookingSocket(transport._sock, self._look)  # noqa: SLF001  # there is no other way
        await super()._process_connect_init()

    async def _attempt_reconnect(self) -> None:
        """Drop what the old connection still holds, here and in the kernel: it would come late, and out of order."""
        self._drop_unsent()
        if (writer := self._socket_writer) is not None:
            writer.transport.abort()
        await super()._attempt_reconnect()

    def _drop_unsent(self) -> None:
        """Have the kernel drop what it still holds, as soon as the connection is closed."""
        if (bare := self._bare_writer) is not None:
            with contextlib.suppress(OSError):  # it is closed
                bare.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """Ask behind what waits for the socket: nats-py asks ahead of it, so that its `flush` says nothing about it."""
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        self._pending.append(PING)
        self._pending_data_size += len(PING)
        await self._flush_pending()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        receive = self._receivers.get(sid)
        if receive is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
        try:
            receive(subject, reply, data, headers)
        except Exception as e:  # noqa: BLE001  # as nats-py does: it would end the reading of everything else
            await self._error_cb(e)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._receivers.pop(sid, None)
        super()._remove_sub(sid, max_msgs)


async def _unexpected(message: Msg) -> None:
    raise RuntimeError(f"a message on {message.subject} came past its receiver")
