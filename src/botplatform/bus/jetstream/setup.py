"""What `botplatform setup` creates: the log, the stream by type, the groups' consumers and the buckets.

It can be repeated: what is there is brought up to date, and nothing that holds events is ever removed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from botplatform.bus.jetstream.connection import ApiError, Connection
from botplatform.bus.jetstream.kv import META, Bucket
from botplatform.bus.jetstream.lease import LEASE_S, LEASES
from botplatform.bus.jetstream.subjects import PUBLISHED, STORED, filters
from botplatform.core.seam import random_id
from botplatform.errors import StreamError
from botplatform.settings import BusSettings

__all__ = [
    "ACCOUNTS",
    "BUCKETS",
    "SetupReport",
    "by_type_name",
    "check_log",
    "partition_consumer",
    "read_log_id",
    "setup",
]

CHECKPOINTS: Final = "checkpoints"
"""Bucket of the engines' state."""
TRADING: Final = "trading"
"""Bucket of the trading state: halted, reducing, active."""
ACCOUNTS: Final = "accounts"
"""Bucket of what each account has at stake, for its limit."""
DEAD_LETTERS: Final = "DEAD_LETTERS"
"""Stream of events that no engine could handle, and what became of them; one for all logs of a server."""
ADVISORIES: Final = "ADVISORIES"
"""Stream of the server's advisories about events that shared groups gave up."""
PARTITIONS: Final = "partitions"
"""Bucket of the partitions' owners."""
MEMBERS: Final = "members"
"""Bucket of the processes' signs of life."""
MEMBER_KEPT_S: Final = 60
"""Seconds after which the key of a process that died is removed; it counts as dead long before."""
BUCKETS: Final = (CHECKPOINTS, TRADING, ACCOUNTS, META, PARTITIONS)
LOG_ID: Final = "log_id"
ACK_WAIT_NS: Final = 30 * 10**9
MAX_DELIVER: Final = 5
"""Times that an event is delivered to a shared group before that gives it up."""
GIVEN_UP: Final = ("MAX_DELIVERIES", "MSG_TERMINATED")
"""Kinds of advisories that are kept."""
ADVISORIES_KEPT_S: Final = 30 * 24 * 3600
MAX_ADVISORIES: Final = 10_000
MAX_ACK_PENDING: Final = 1024
"""Events that a group may have in hand; more than a consumer pulls at once."""
GROUP_MARK: Final = "botplatform_group"
"""Metadata of the consumers that belong to engines; others do not hold up `wait_settled`."""
_SECOND_NS: Final = 10**9
COMPRESSION: Final = "none"
"""Of no stream: server 2.15 cuts the last block of a copy when it joins again after a crash, breaks it if it is
compressed ("s2: corrupt input"), and that copy then takes no write. Sizes are counted without compression anyway."""
_PARTITIONS: Final = re.compile(r"\{\{partition\((\d+),3\)\}\}")


@dataclass(frozen=True)
class SetupReport:
    """What `setup` found and did, each as `<kind> <name>`."""

    log_id: str
    """The id of the log, minted when it was set up first."""
    created: tuple[str, ...] = ()
    """What did not exist."""
    updated: tuple[str, ...] = ()
    """What was different."""
    unchanged: tuple[str, ...] = ()
    """What was as it should be."""
    left: tuple[str, ...] = ()
    """Consumers of groups that were not named: left alone, because they may be another process's."""


@dataclass
class _Steps:
    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


async def setup(
    connection: Connection,
    settings: BusSettings,
    groups: Mapping[str, Iterable[str]],
    partitioned: Collection[str] = (),
    shared: Collection[str] = (),
) -> SetupReport:
    """Create or update all that the bus needs; `groups` maps a group to the patterns that it listens to.

    Groups in `partitioned` get one consumer for each partition of the log, `<group>-<partition>`; those in `shared`
    get one that any number of processes pull from, for `share`.
    Raises `StreamError` when the log exists with another number of partitions or another id, and when the server
    refuses something: no room for `bus.max_bytes`, for example.
    """
    steps = _Steps()
    await _stream(connection, _log_config(settings), settings.partitions, steps)
    if settings.by_type:
        await _stream(connection, _by_type_config(settings), None, steps)
    await _stream(connection, _dead_letters_config(settings), None, steps)
    if shared:
        await _stream(connection, _advisories_config(settings), None, steps)
    for bucket in BUCKETS:
        await _stream(connection, _bucket_config(bucket, settings), None, steps)
    await _stream(connection, _leases_config(settings), None, steps)
    members = {**_bucket_config(MEMBERS, settings), "max_age": MEMBER_KEPT_S * _SECOND_NS}
    await _stream(connection, members, None, steps)
    consumers = dict(_consumers(groups, partitioned, settings.partitions))
    for name, subjects in consumers.items():
        config = _consumer_config(name, subjects, shared=name in shared)
        await _consumer(connection, settings.stream, config, steps)
    known = await list_groups(connection, settings.stream)
    return SetupReport(
        log_id=await _mint_log_id(connection, settings.log_id),
        created=tuple(steps.created),
        updated=tuple(steps.updated),
        unchanged=tuple(steps.unchanged),
        left=tuple(f"consumer {name}" for name in known if name not in consumers),
    )


def _consumers(
    groups: Mapping[str, Iterable[str]], partitioned: Collection[str], partitions: int
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for group, patterns in groups.items():
        if group not in partitioned:
            yield group, filters(patterns)
            continue
        for partition in range(partitions):
            yield partition_consumer(group, partition), filters(patterns, partition)


def partition_consumer(group: str, partition: int | str) -> str:
    """Return the name of a partitioned group's consumer."""
    return f"{group}-{partition}"


def by_type_name(stream: str) -> str:
    """Return the name of the stream by type that belongs to a log."""
    return f"{stream}_BY_TYPE"


async def list_groups(connection: Connection, stream: str) -> dict[str, dict[str, Any]]:
    """Return the state of every group's consumer, by group."""
    found: dict[str, dict[str, Any]] = {}
    offset = 0
    while True:
        page = await connection.api(f"CONSUMER.LIST.{stream}", {"offset": offset} if offset else None)
        consumers = page.get("consumers") or []
        for info in consumers:
            if GROUP_MARK in (info["config"].get("metadata") or {}):
                found[info["name"]] = info
        offset += len(consumers)
        if not consumers or offset >= page.get("total", 0):
            return found


async def read_log_id(connection: Connection) -> str:
    """Return the id of the log; raise `StreamError` when `setup` never ran."""
    try:
        entry = await Bucket(connection, META).get(LOG_ID)
    except ApiError as e:
        raise StreamError(f"the log at {connection.where} is not set up ({e}): run `botplatform setup`") from e
    if entry is None:
        raise StreamError(f"the log at {connection.where} has no id: run `botplatform setup`")
    return entry.value.decode()


async def check_log(connection: Connection, settings: BusSettings) -> None:
    """Raise `StreamError` when there is no log, or one with other partitions than the settings say."""
    found = await connection.api_or_none(f"STREAM.INFO.{settings.stream}")
    if found is None:
        raise StreamError(f"there is no log {settings.stream} at {connection.where}: run `botplatform setup`")
    _check_partitions(found["config"], settings.partitions)


async def _mint_log_id(connection: Connection, wanted: str) -> str:
    meta = Bucket(connection, META)
    entry = await meta.get(LOG_ID)
    if entry is None:
        try:
            minted = wanted or random_id()
            await meta.put(LOG_ID, minted.encode(), expected=0)
            return minted
        except StreamError:  # another setup at the same time was first
            entry = await meta.get(LOG_ID)
    found = entry.value.decode() if entry is not None else ""
    if wanted and wanted != found:
        raise StreamError(
            f"the log at {connection.where} has the id {found!r}, and bus.log_id says {wanted!r}: "
            "leave bus.log_id empty, or start a new log"
        )
    return found


def _log_config(settings: BusSettings) -> dict[str, Any]:
    return {
        "name": settings.stream,
        "description": "The log: every event, in one total order.",
        "subjects": [PUBLISHED],
        "storage": "file",
        "num_replicas": settings.replicas,
        "retention": "limits",
        "discard": "new",
        "max_bytes": settings.max_bytes,
        "duplicate_window": settings.duplicate_window_s * _SECOND_NS,
        "compression": COMPRESSION,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "deny_delete": True,
        "subject_transform": {
            "src": PUBLISHED,
            "dest": f"{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.{{{{partition({settings.partitions},3)}}}}.{{{{wildcard(3)}}}}",
        },
        "republish": {"src": STORED, "dest": "{{wildcard(1)}}.{{wildcard(2)}}"},
    }


def _by_type_config(settings: BusSettings) -> dict[str, Any]:
    return {
        "name": by_type_name(settings.stream),
        "description": "The events of the log under exactly <domain>.<action>, for consumers of others.",
        "storage": "file",
        "num_replicas": settings.replicas,
        "retention": "limits",
        "discard": "old",
        "max_bytes": settings.max_bytes,
        "compression": COMPRESSION,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "sources": [
            {
                "name": settings.stream,
                "subject_transforms": [{"src": STORED, "dest": "{{wildcard(1)}}.{{wildcard(2)}}"}],
            }
        ],
    }


def _dead_letters_config(settings: BusSettings) -> dict[str, Any]:
    return {
        "name": DEAD_LETTERS,
        "description": "Events that no engine could handle, and what became of them.",
        "subjects": ["dlq.>"],
        "storage": "file",
        "num_replicas": settings.replicas,
        "retention": "limits",
        "max_msgs_per_subject": 1,
        "compression": COMPRESSION,
        "allow_direct": True,
        "allow_msg_ttl": True,
    }


def _advisories_config(settings: BusSettings) -> dict[str, Any]:
    return {
        "name": ADVISORIES,
        "description": "The server's advisories about events that shared groups gave up.",
        "subjects": [f"$JS.EVENT.ADVISORY.CONSUMER.{kind}.{settings.stream}.>" for kind in GIVEN_UP],
        "storage": "file",
        "num_replicas": settings.replicas,
        "retention": "limits",
        "discard": "old",
        "max_msgs": MAX_ADVISORIES,
        "max_age": ADVISORIES_KEPT_S * _SECOND_NS,
        "compression": COMPRESSION,
        "allow_direct": True,
    }


def _bucket_config(bucket: str, settings: BusSettings) -> dict[str, Any]:
    return {
        "name": f"KV_{bucket}",
        "subjects": [f"$KV.{bucket}.>"],
        "storage": "file",
        "num_replicas": settings.replicas,
        "max_msgs_per_subject": 1,
        "discard": "new",
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_direct": True,
    }


def _leases_config(settings: BusSettings) -> dict[str, Any]:
    lifetime = round(LEASE_S * _SECOND_NS)
    return {**_bucket_config(LEASES, settings), "max_age": lifetime, "duplicate_window": lifetime}


async def _stream(connection: Connection, config: dict[str, Any], partitions: int | None, steps: _Steps) -> None:
    name = config["name"]
    found = await connection.api_or_none(f"STREAM.INFO.{name}")
    if found is None:
        await _ask(connection, f"STREAM.CREATE.{name}", config, f"create the stream {name}")
        steps.created.append(f"stream {name}")
        return
    if partitions is not None:
        _check_partitions(found["config"], partitions)
    if _holds(config, found["config"]):
        steps.unchanged.append(f"stream {name}")
        return
    await _ask(connection, f"STREAM.UPDATE.{name}", config, f"update the stream {name}")
    steps.updated.append(f"stream {name}")


def _check_partitions(found: Mapping[str, Any], wanted: int) -> None:
    transform = (found.get("subject_transform") or {}).get("dest", "")
    match = _PARTITIONS.search(transform)
    if match is None:
        raise StreamError(
            f"the stream {found['name']} exists and is not a log of this platform: set bus.stream to another name"
        )
    if int(match[1]) != wanted:
        raise StreamError(
            f"the stream {found['name']} has {match[1]} partitions and bus.partitions says {wanted}: that is fixed "
            f"for a log, because keys would move; set bus.partitions to {match[1]}, or start a new log"
        )


def _consumer_config(group: str, filter_subjects: tuple[str, ...], *, shared: bool) -> dict[str, Any]:
    return {
        "durable_name": group,
        "name": group,
        "filter_subjects": list(filter_subjects),
        "deliver_policy": "all",
        "ack_policy": "explicit" if shared else "all",
        "ack_wait": ACK_WAIT_NS,
        "max_deliver": MAX_DELIVER if shared else -1,
        "max_ack_pending": MAX_ACK_PENDING,
        "replay_policy": "instant",
        "metadata": {GROUP_MARK: group},
    }


async def _consumer(connection: Connection, stream: str, config: dict[str, Any], steps: _Steps) -> None:
    group = config["name"]
    found = await connection.api_or_none(f"CONSUMER.INFO.{stream}.{group}")
    if found is not None and _holds(config, _with_filters(found["config"])):
        steps.unchanged.append(f"consumer {group}")
        return
    body = {"stream_name": stream, "config": config}
    await _ask(connection, f"CONSUMER.CREATE.{stream}.{group}", body, f"set up the consumer {group}")
    (steps.created if found is None else steps.updated).append(f"consumer {group}")


def _with_filters(config: dict[str, Any]) -> dict[str, Any]:
    """Undo what the server does to a single filter: it keeps that in a field of its own."""
    single = config.get("filter_subject")
    return {**config, "filter_subjects": [single]} if single else config


async def _ask(connection: Connection, operation: str, body: dict[str, Any], what: str) -> None:
    try:
        await connection.api(operation, body)
    except ApiError as e:
        raise StreamError(f"cannot {what} on {connection.where}: {e}") from e


def _holds(wanted: Any, found: Any) -> bool:
    """Tell whether everything that is wanted is so; what the server adds by itself does not count."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_holds(value, found.get(name)) for name, value in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(wanted) == len(found)
            and all(_holds(one, other) for one, other in zip(wanted, found, strict=True))
        )
    return bool(wanted == found)
