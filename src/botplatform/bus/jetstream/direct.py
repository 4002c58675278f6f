"""The short way through the client of nats-py, for what comes by the thousand.

nats-py checks and assembles each message's headers when it sends, takes them apart when it receives, and hands every
message through a queue to a task: more work than all the rest of a delivery. Here a message is sent as one ready
command, and one that arrives is handed over where it is parsed. Everything else (connecting, reconnecting,
subscribing again, requests) is nats-py's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from botplatform.bus.jetstream.credentials import GuardedClient

__all__ = ["DirectClient", "Receive", "Status", "parse_status"]

PING: Final = b"PING\r\n"
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


class DirectClient(GuardedClient):
    """The client of nats-py with a short way in and a short way out."""

    def __init__(self) -> None:
        super().__init__()
        self._receivers: dict[int, Receive] = {}

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
        """Send a message without headers; raises what `send_ready` raises."""
        self.send_ready(f"PUB {subject} {reply} {len(body)}\r\n".encode(), body)

    def send_with_headers(self, subject: str, reply: str, headers: str, body: bytes) -> None:
        """Send a message with a whole block of headers in ASCII, its first line and the empty one included.

        Raises what `send_ready` raises, and `MaxPayloadError` when the server takes less.
        """
        size = len(headers) + len(body)
        if size > self._max_payload:
            raise nats.errors.MaxPayloadError
        self.send_ready(f"HPUB {subject} {reply} {len(headers)} {size}\r\n{headers}".encode(), body)

    def send_ready(self, head: bytes, body: bytes) -> None:
        """Put a command behind what waits for the socket.

        Raises `ConnectionClosedError`, `ConnectionDrainingError`, and `OutboundBufferLimitError` while there is no
        connection: nothing is kept for the next one, because what was lost on this one has to go first.
        """
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        if self.is_draining_pubs:
            raise nats.errors.ConnectionDrainingError
        if not self.is_connected or self._flush_queue is None:
            raise nats.errors.OutboundBufferLimitError
        command = b"%b%b\r\n" % (head, body)
        self._pending.append(command)
        self._pending_data_size += len(command)
        self.stats["out_msgs"] += 1
        self.stats["out_bytes"] += len(body)
        if self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

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
