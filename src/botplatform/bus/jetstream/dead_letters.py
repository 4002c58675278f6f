"""The stream of dead letters: events that no engine could handle, and what became of them.

| subject | what is there |
| --- | --- |
| `dlq.<engine>.<key>.<partition>.<sequence>` | the event, with its body and headers as the log has them |
| `dlq.<engine>.<key>.<partition>.<sequence>.ruling` | what is to become of it, and what became |
| `dlq.<engine>.<key>.held` | whether the key is quarantined |

Each subject keeps its newest message. The partition is `all` where the group is not divided.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import Final, NamedTuple

import nats.errors
from nats.aio.msg import Msg

from botplatform.bus.jetstream.connection import ApiError, Connection
from botplatform.bus.jetstream.kv import EXPECTED, WRONG_SEQUENCE
from botplatform.bus.jetstream.setup import DEAD_LETTERS
from botplatform.bus.jetstream.wire import MESSAGE_ID, TTL
from botplatform.errors import BusError, StreamError

__all__ = ["DeadLetterStream", "Stored"]

BATCH: Final = 256
END: Final = ("204", "404")
ORIGIN: Final = "Origin-"
"""Before the names of headers that the server would obey: they keep what they said in the log."""


class Stored(NamedTuple):
    """A message as a stream has it."""

    subject: str
    sequence: int
    headers: dict[str, str]
    data: bytes


class DeadLetterStream:
    """Reads and writes the stream of dead letters; `log` is the name of the log's stream."""

    def __init__(self, connection: Connection, log: str) -> None:
        self._connection = connection
        self._log = log

    async def original(self, sequence: int) -> Stored | None:
        """Return a message of the log as it is; None when it has expired."""
        found = await self._connection.api_or_none(f"STREAM.MSG.GET.{self._log}", {"seq": sequence})
        return None if found is None else parse_message(found["message"])

    async def last(self, subject: str) -> Stored | None:
        """Return the newest message of a subject as the leader has it; None when there is none."""
        found = await self._connection.api_or_none(f"STREAM.MSG.GET.{DEAD_LETTERS}", {"last_by_subj": subject})
        return None if found is None else parse_message(found["message"])

    async def put(self, subject: str, data: bytes, headers: dict[str, str], *, expected: int | None = None) -> bool:
        """Store a message; tell whether it was, which it is not when the newest is another one than `expected`.

        `expected` is that one's sequence, 0 for none at all; None replaces whatever is there. Raises `BusError`
        without an answer, and `StreamError` when there is no such stream.
        """
        sent = dict(headers) if expected is None else {**headers, EXPECTED: str(expected)}
        connection = self._connection
        try:
            answer = await connection.request(subject, data, headers=sent)
        except nats.errors.NoRespondersError as e:
            raise StreamError(
                f"there is no stream {DEAD_LETTERS} at {connection.where}: run `botplatform setup`"
            ) from e
        except (nats.errors.Error, TimeoutError) as e:
            raise BusError(f"{subject} may not have been stored: no answer from {connection.where}") from e
        error = json.loads(answer.data).get("error")
        if error is None:
            return True
        if error.get("err_code") in WRONG_SEQUENCE:
            return False
        raise ApiError(
            f"the stream {DEAD_LETTERS} refused {subject}: {error.get('description')}",
            status=int(error.get("code", 0)),
            error=int(error.get("err_code", 0)),
        )

    async def read(self, pattern: str = "dlq.>", after: int = 0) -> list[Stored]:
        """Return what is stored on subjects behind a sequence of the stream, in order.

        A follower may answer, a moment behind the leader.
        """
        found: list[Stored] = []
        while True:
            batch = await self._batch(pattern, found[-1].sequence if found else after)
            found += batch
            if len(batch) < BATCH:
                return found

    async def _batch(self, pattern: str, after: int) -> list[Stored]:
        client, found, done = self._connection.client, list[Stored](), asyncio.Event()
        problem = ""

        async def arrived(message: Msg) -> None:
            nonlocal problem
            headers = dict(message.headers or {})
            status = headers.get("Status")
            if status is not None:
                problem = "" if status in END else f"{status} {headers.get('Description', '')}"
                done.set()
                return
            found.append(Stored(headers["Nats-Subject"], int(headers["Nats-Sequence"]), headers, message.data))

        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, cb=arrived)
        body = json.dumps({"seq": after + 1, "batch": BATCH, "next_by_subj": pattern}).encode()
        try:
            await client.publish(f"$JS.API.DIRECT.GET.{DEAD_LETTERS}", body, reply=inbox)
            async with asyncio.timeout(self._connection.timeout_s):
                await done.wait()
        except (nats.errors.Error, TimeoutError) as e:
            raise BusError(f"the stream {DEAD_LETTERS} at {self._connection.where} did not answer") from e
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()
        if problem:
            raise StreamError(f"the stream {DEAD_LETTERS} cannot be read ({problem.strip()}): run `botplatform setup`")
        return found


def carried(headers: dict[str, str]) -> dict[str, str]:
    """Return headers of the log so that they mean nothing to the server when they are stored again."""
    return {f"{ORIGIN}{name}" if name.startswith("Nats-") else name: value for name, value in headers.items()}


def original_headers(headers: dict[str, str]) -> dict[str, str]:
    """Undo `carried`, and leave out what was added."""
    kept = {name: value for name, value in headers.items() if not name.startswith(("Nats-", "Dlq-"))}
    return {name.removeprefix(ORIGIN): value for name, value in kept.items()}


def control(message_id: str, kept: str) -> dict[str, str]:
    """Return the headers that the server obeys: the id that drops repetitions, and how long it is kept."""
    return {MESSAGE_ID: message_id, TTL: kept}


def parse_message(message: dict[str, str]) -> Stored:
    """Return a message that `STREAM.MSG.GET` answered with."""
    headers = {}
    for line in base64.b64decode(message.get("hdrs", "")).decode(errors="replace").splitlines()[1:]:
        name, found, value = line.partition(":")
        if found:
            headers[name] = value.strip()
    return Stored(message["subject"], int(message["seq"]), headers, base64.b64decode(message.get("data", "")))
