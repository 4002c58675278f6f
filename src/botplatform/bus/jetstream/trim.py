"""Removing from the log, and from the stream by type, what everybody has covered: how `floors` is carried out.

Removed is from the beginning, in steps, everything up to one sequence. First of all the mark says so (`trimmed`), then
the log is purged, then its copy: ended in between, the next look goes on where it was.

Nobody publishes with the expected last sequence of a subject of the log, which removing its last event sets to 0: that
would be refused from then on. What the server drops repetitions by outlives what is removed, and is younger anyhow.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from botplatform.bus.jetstream.connection import Connection
from botplatform.bus.jetstream.floors import UNKNOWN, Hold, Limits, Position, Slot, Verdict, begin_of, decide
from botplatform.bus.jetstream.kv import META, Bucket
from botplatform.bus.jetstream.limits import PURGE_AT, fullness
from botplatform.bus.jetstream.setup import CHECKPOINTS, by_type_name, list_groups
from botplatform.bus.jetstream.trimmed import TrimmedMark
from botplatform.core.trimmed import Trimmed
from botplatform.errors import StateError
from botplatform.settings import BusSettings

__all__ = ["STEP", "Consumers", "Trimming", "trim"]

STEP: Final = 50_000
"""Most sequences that are removed at once."""
LEAST_KEPT_S: Final = 3600
"""Seconds that covered events are kept when the log is more than 80 % full."""
_SOURCE: Final = "nats-stream-source:"
_ANY: Final = ">"


class Consumers(NamedTuple):
    """What there has to be at the log, and how to read its checkpoints."""

    names: Collection[str]
    """Consumers of all groups: where one is missing, nothing is removed."""
    stateless: Collection[str]
    """Those of them that have no state, and therefore no checkpoint."""
    saved: Callable[[str, bytes], int]
    """Returns the sequence behind which a consumer's log is needed, given its name and checkpoint; may raise `StateError`."""


class Trimming(NamedTuple):
    """What one look at the log found and did."""

    trimmed: Trimmed
    """How far it is trimmed now."""
    used: float
    """Share of the log's size that is used."""
    removed: int = 0
    """Events that were removed."""
    hold: Hold | None = None
    """Why events that are old enough stay; None where none do."""
    more: bool = False
    """There is more to remove at once."""


async def trim(connection: Connection, settings: BusSettings, consumers: Consumers, *, step: int = STEP) -> Trimming:
    """Remove what is old enough and covered, `step` sequences at most.

    Needs the permissions of the role `setup`. Raises `BusError` when the log does not answer, `StreamError` when
    somebody else has trimmed meanwhile, and `StateError` for a mark or checkpoint that cannot be read, or a mark of
    another log.
    """
    mark = await TrimmedMark.read(connection)
    log = await connection.api(f"STREAM.INFO.{settings.stream}")
    state, used, before = log["state"], fullness(log), mark.trimmed
    if before.sequence > int(state["last_seq"]):  # removing up to there would remove what nobody has seen
        raise StateError(
            f"the bucket {META} says that the log {settings.stream} was trimmed up to {before.sequence}, but it ends at "
            f"{state['last_seq']}: the buckets are those of another log; restore both from one backup, or, for a new log, "
            "remove the buckets too"
        )
    removed = 0
    if int(state["messages"]) and int(state["first_seq"]) <= before.sequence:  # ended before it was removed
        removed = await _purge(connection, settings.stream, before.sequence)
        await _purge_copy(connection, settings.stream, before.sequence)
    aged = 0 if not settings.keep_s else await _aged(connection, settings, used, last=int(state["last_seq"]))
    if min(aged, int(state["last_seq"]) - 1) <= before.sequence:
        return Trimming(before, used, removed)
    begins = await _begins(connection, settings.stream, consumers, before)
    copied = await _copied(connection, settings.stream)
    if isinstance(copied, Hold):
        begins.append(copied)
    bound = max(before.sequence, int(state["first_seq"]) - 1) + step
    limits = Limits(aged, int(state["last_seq"]), None if isinstance(copied, Hold) else copied, bound)
    verdict = decide(before, [await _position(connection, settings.stream, each) for each in begins], limits)
    if verdict.up_to > before.sequence:
        removed += await _remove(connection, settings.stream, mark, verdict, begins)
    return Trimming(mark.trimmed, used, removed, verdict.hold, more=verdict.up_to == bound)


class _Begin(NamedTuple):
    """A consumer whose next event is looked for behind a sequence, on its subjects."""

    slot: Slot
    behind: int
    subjects: tuple[str, ...]
    last: int


async def _begins(connection: Connection, stream: str, consumers: Consumers, trimmed: Trimmed) -> list[_Begin | Hold]:
    """Return where each consumer stands."""
    last = int((await connection.api(f"STREAM.INFO.{stream}"))["state"]["last_seq"])
    found = await list_groups(connection, stream)
    checkpoints = await Bucket(connection, CHECKPOINTS).entries()
    begins: list[_Begin | Hold] = [
        Hold(UNKNOWN, name, f"the log has no consumer {name}: run `botplatform setup`")
        for name in consumers.names
        if name not in found
    ]
    for name, info in found.items():
        value = checkpoints[name].value if name in checkpoints else b""
        config = info["config"]
        slot = Slot(
            name,
            consumers.saved(name, value) if value else None,
            int(info["ack_floor"]["stream_seq"]),
            stateless=name in consumers.stateless or config.get("ack_policy") == "explicit",
        )
        behind = begin_of(slot, trimmed)
        subjects = tuple(config.get("filter_subjects") or [config.get("filter_subject") or _ANY])
        begins.append(behind if isinstance(behind, Hold) else _Begin(slot, behind, subjects, last))
    return begins


async def _position(connection: Connection, stream: str, begin: _Begin | Hold) -> Position | Hold:
    """Return up to where a consumer needs nothing: right before the next of its events that the log has.

    The log itself is asked, not what the consumer counts as pending: that is no more than a hint after a purge.
    """
    if isinstance(begin, Hold):
        return begin
    nearest = begin.last + 1
    for subject in begin.subjects:
        found = await _next(connection, stream, begin.behind + 1, subject)
        if found is not None:
            nearest = min(nearest, int(found["seq"]))
    return Position(begin.slot, nearest - 1)


async def _remove(
    connection: Connection, stream: str, mark: TrimmedMark, verdict: Verdict, begins: list[_Begin | Hold]
) -> int:
    """Write the mark, then remove; return how many events of the log that were."""
    following = await _next(connection, stream, verdict.up_to + 1, _ANY)
    time_ns = mark.trimmed.time_ns if following is None else _time_ns(following)
    places = {each.slot.name: _place(each.slot) for each in begins if isinstance(each, _Begin)}
    await mark.replace(Trimmed(verdict.up_to, time_ns, places))
    removed = await _purge(connection, stream, verdict.up_to)
    await _purge_copy(connection, stream, verdict.up_to)
    return removed


def _place(slot: Slot) -> int:
    return slot.acknowledged if slot.stateless else slot.saved or 0


async def _aged(connection: Connection, settings: BusSettings, used: float, *, last: int) -> int:
    """Return the sequence of the newest event that is old enough; 0 when there is none."""
    kept_s = max(settings.keep_s, settings.tick_ttl_s)
    if used >= PURGE_AT:
        kept_s = min(settings.keep_s, LEAST_KEPT_S)
    kept_s = max(kept_s, 2 * settings.duplicate_window_s)
    edge = datetime.fromtimestamp(connection.clock.now_ns() // 10**9 - kept_s, UTC)
    found = await connection.api_or_none(
        f"STREAM.MSG.GET.{settings.stream}", {"start_time": edge.strftime("%Y-%m-%dT%H:%M:%SZ")}
    )
    return last if found is None else int(found["message"]["seq"]) - 1


async def _copied(connection: Connection, stream: str) -> int | Hold | None:
    """Return up to where the stream by type has copied the log; None where there is no such stream."""
    name = by_type_name(stream)
    info = await connection.api_or_none(f"STREAM.INFO.{name}")
    if info is None:
        return None
    found = await connection.api_or_none(f"STREAM.MSG.GET.{name}", {"last_by_subj": _ANY})
    if found is None:
        return Hold(UNKNOWN, name, f"the stream {name} is empty: how far it has copied the log is not known")
    return _source_of(found["message"])


async def _purge(connection: Connection, stream: str, up_to: int) -> int:
    answer = await connection.api(f"STREAM.PURGE.{stream}", {"seq": up_to + 1})
    return int(answer.get("purged", 0))


async def _purge_copy(connection: Connection, stream: str, up_to: int) -> None:
    """Remove from the stream by type what are copies of what was removed; its newest message stays."""
    name = by_type_name(stream)
    info = await connection.api_or_none(f"STREAM.INFO.{name}")
    if info is None or not int(info["state"]["messages"]):
        return
    low, high = int(info["state"]["first_seq"]), int(info["state"]["last_seq"])
    while low < high:  # the first message whose original is still there, or the newest
        middle = (low + high) // 2
        found = await _next(connection, name, middle, _ANY)
        if found is None or int(found["seq"]) >= high or _source_of(found) > up_to:
            high = middle
        else:
            low = int(found["seq"]) + 1
    await connection.api(f"STREAM.PURGE.{name}", {"seq": low})


async def _next(connection: Connection, stream: str, sequence: int, subject: str) -> Mapping[str, Any] | None:
    """Return the first message of a stream at or behind a sequence."""
    found = await connection.api_or_none(f"STREAM.MSG.GET.{stream}", {"seq": sequence, "next_by_subj": subject})
    return None if found is None else found["message"]


def _source_of(message: Mapping[str, Any]) -> int:
    """Return the sequence of the log that a message of the stream by type is a copy of."""
    for line in base64.b64decode(message.get("hdrs", "")).decode(errors="replace").splitlines():
        if line.lower().startswith(_SOURCE):
            return int(line.split()[2])
    return 0  # not a copy: it tells nothing, and nothing is removed for it


def _time_ns(message: Mapping[str, Any]) -> int:
    """Return when a message was stored, in nanoseconds since the UNIX epoch, rounded up to a second."""
    return (int(datetime.fromisoformat(message["time"][:19] + "+00:00").timestamp()) + 1) * 10**9
