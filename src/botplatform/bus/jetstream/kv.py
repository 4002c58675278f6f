"""Small durable values with compare-and-set: checkpoints, the trading state, the id of the log."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from typing import Any, Final, NamedTuple

import nats.errors
from nats.aio.msg import Msg

from botplatform.bus.jetstream.connection import ApiError, Connection
from botplatform.core.seam import random_id
from botplatform.errors import BusError, PermissionDenied, StreamError

__all__ = ["META", "Bucket", "Entry"]

META: Final = "meta"
"""Bucket of what is true of the log as a whole."""
MESSAGE_ID: Final = "Nats-Msg-Id"
RETRY_S: Final = 0.05
"""First pause before asking again; doubles up to a second."""
LEADERLESS: Final = 30
"""How often a bucket is asked that nobody answers for, about as many seconds: electing a leader takes a few."""
EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
WRONG_SEQUENCE: Final = (10071, 10164)
END: Final = ("204", "404")
"""How the server says that there are no more, or none at all."""
MAX_KEYS: Final = 10_000

logger = logging.getLogger(__name__)


class Entry(NamedTuple):
    """A value, and the revision to give when replacing it."""

    value: bytes
    revision: int


class Bucket:
    """One bucket, by name. Keys are letters, digits and `-_=.`; values up to the server's largest message."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self.name = name

    async def get(self, key: str) -> Entry | None:
        """Return the value as the leader has it; None when there is none."""
        message = await self._last(key)
        if message is None or _is_deletion(message):
            return None
        return Entry(base64.b64decode(message.get("data", "")), int(message["seq"]))

    async def _last(self, key: str) -> dict[str, Any] | None:
        """Return the newest message of a key, maybe one that says it was deleted."""
        subject = f"$KV.{self.name}.{key}"
        found = await self._connection.api_or_none(f"STREAM.MSG.GET.KV_{self.name}", {"last_by_subj": subject})
        return None if found is None else found["message"]

    async def entries(self) -> dict[str, Entry]:
        """Return every key with its value, in one request; a follower may answer, a moment behind the leader."""
        client, found = self._connection.client, dict[str, Entry]()
        prefix, done = f"$KV.{self.name}.", asyncio.Event()
        problem = ""

        async def arrived(message: Msg) -> None:
            nonlocal problem
            headers = message.headers or {}
            status = headers.get("Status", "")
            if status:
                problem = "" if status in END else f"{status} {headers.get('Description', '')}"
                done.set()
            elif "KV-Operation" not in headers:
                key = headers["Nats-Subject"].removeprefix(prefix)
                found[key] = Entry(message.data, int(headers["Nats-Sequence"]))

        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, cb=arrived)
        try:
            body = json.dumps({"multi_last": [f"{prefix}>"], "batch": MAX_KEYS}).encode()
            await client.publish(f"$JS.API.DIRECT.GET.KV_{self.name}", body, reply=inbox)
            async with asyncio.timeout(self._connection.timeout_s):
                await done.wait()
        except (nats.errors.Error, TimeoutError) as e:
            raise BusError(f"the bucket {self.name} at {self._connection.where} did not answer") from e
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()
        if problem:
            raise StreamError(f"the bucket {self.name} cannot be read ({problem.strip()}): run `botplatform setup`")
        return found

    async def delete(self, key: str) -> None:
        """Remove a key; one that is not there is ignored."""
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
        try:
            await self._connection.request(f"$KV.{self.name}.{key}", b"", headers=headers)
        except (nats.errors.Error, TimeoutError) as e:
            raise BusError(f"{key} may still be in the bucket {self.name}: no answer") from e

    async def replace(self, key: str, value: bytes, *, expected: int) -> int:
        """Store a value as `put` does, and ask again for as long as there is no answer.

        What was stored although its answer was lost counts: it is known by an id that only this call has. A bucket
        that nobody answers for may have no leader, where there are several servers: it is asked for half a minute.
        """
        message_id, pause, pauses, asked = random_id(), RETRY_S, 0, False
        while True:
            try:
                return await self.put(key, value, expected=expected, message_id=message_id)
            except PermissionDenied:
                raise
            except StreamError as e:
                if _nobody_answers(e) and pauses < LEADERLESS:
                    logger.warning("%s: asking again, in case it has only no leader at the moment", e)
                    pauses += 1
                    await self._connection.clock.sleep(pause)
                    pause = min(1.0, pause * 2)
                    continue
                stored = await self._stored_as(key, message_id) if asked else None
                if stored is None:
                    raise
                return stored
            except BusError as e:
                if self._connection.client.is_closed:
                    raise
                logger.warning("%s: asking again", e)
                asked = True
                await self._connection.clock.sleep(pause)
                pause = min(1.0, pause * 2)

    async def _stored_as(self, key: str, message_id: str) -> int | None:
        """Return the revision of a key when its value was stored under that id."""
        message = await self._last(key)
        if message is None or message_id.encode() not in base64.b64decode(message.get("hdrs", "")):
            return None
        return int(message["seq"])

    async def put(self, key: str, value: bytes, *, expected: int | None = None, message_id: str = "") -> int:
        """Store a value and return its revision; a `message_id` is stored with it.

        `expected` is the revision that it replaces, 0 for none at all or one that was deleted; None replaces whatever
        is there. Raises
        `StreamError` when somebody else was first, or the value is too large, and `BusError` without an answer,
        in which case it may or may not have been stored.
        """
        headers = {} if expected is None else {EXPECTED: str(expected)}
        if message_id:
            headers[MESSAGE_ID] = message_id
        connection = self._connection
        try:
            answer = await connection.request(f"$KV.{self.name}.{key}", value, headers=headers or None)
        except nats.errors.MaxPayloadError as e:
            raise StreamError(
                f"the value of {key} in the bucket {self.name} has {len(value)} bytes, the server takes "
                f"{connection.client.max_payload}: raise its max_payload"
            ) from e
        except nats.errors.NoRespondersError as e:
            raise StreamError(f"there is no bucket {self.name} at {connection.where}: run `botplatform setup`") from e
        except (nats.errors.Error, TimeoutError) as e:
            raise BusError(
                f"{key} in the bucket {self.name} may not have been stored: no answer from {connection.where}"
            ) from e
        reply = json.loads(answer.data)
        if "error" not in reply:
            return int(reply["seq"])
        error = reply["error"]
        if error.get("err_code") in WRONG_SEQUENCE:
            last = await self._last(key) if expected == 0 else None
            if last is not None and _is_deletion(last):
                return await self.put(key, value, expected=int(last["seq"]), message_id=message_id)
            raise StreamError(
                f"{key} in the bucket {self.name} was changed by somebody else after revision {expected}: "
                "read it again; if it is a checkpoint, another process owns it now"
            )
        raise ApiError(
            f"the bucket {self.name} refused {key}: {error.get('description')}",
            status=int(error.get("code", 0)),
            error=int(error.get("err_code", 0)),
        )


def _nobody_answers(error: StreamError) -> bool:
    """Tell whether there was nobody to store anything, as while servers elect a leader."""
    return isinstance(error.__cause__, nats.errors.NoRespondersError)


def _is_deletion(message: dict[str, Any]) -> bool:
    """Tell whether a message says that its key was deleted, by us or with another tool."""
    return b"KV-Operation:" in base64.b64decode(message.get("hdrs", ""))
