"""What each user of the NATS server needs, and nothing else: pure, from the engines' declarations.

Everything that code of ours publishes or subscribes to has its line in one of the tables below; who adds a bucket or
a request adds a line here. Whatever has no line is refused by the server, and the process that tries it ends with a
sentence that names the subject.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Final, NamedTuple

from botplatform.core.events import CATALOGUE

__all__ = [
    "ENGINE",
    "EXTRA_TYPES",
    "PROBE_SYMBOL",
    "ROLES",
    "RUNTIME_TYPES",
    "Need",
    "Permissions",
    "as_config",
    "connection_name",
    "engine_permissions",
    "render",
    "role_permissions",
]

SHARED_NAME: Final = "botplatform"
"""Name of the connection of a process that runs several engines."""
PROBE_SYMBOL: Final = "BOTPLATFORM-PROBE"
"""What `botplatform probe` publishes for; no venue has it, and no settings should."""


class Need(NamedTuple):
    """A subject that is needed, with the names of what it is repeated for in braces."""

    publish: str
    """What to publish to; empty for none."""
    why: str
    subscribe: str = ""
    """What to subscribe to; empty for none."""


class Permissions(NamedTuple):
    """What a user may do; everything else is refused."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False
    """Whether it may answer requests, wherever the answers are wanted."""


ENGINE: Final = (
    # {type} is repeated for the types it publishes, {group} for its groups, {consumer} for their consumers
    Need("evt.{type}.*", "its events"),
    Need("$JS.API.INFO", "whether there is a JetStream"),
    Need("$JS.API.STREAM.INFO.{stream}", "where the log ends, and how full it is"),
    Need("$JS.API.DIRECT.GET.{stream}", "reading the log"),
    Need("$JS.API.STREAM.MSG.GET.{stream}", "whether what a follower gave is all"),
    Need("$JS.API.CONSUMER.LIST.{stream}", "whether all groups have handled everything"),
    Need("$JS.API.CONSUMER.INFO.{stream}.{consumer}", "where its group is"),
    Need("$JS.API.CONSUMER.RESET.{stream}.{consumer}", "continuing behind its checkpoint"),
    Need("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}", "pulling"),
    Need("$JS.ACK.{stream}.{consumer}.>", "acknowledging"),
    Need("$JS.ACK.*.*.{stream}.{consumer}.>", "acknowledging, in the newer form"),
    Need("$JS.API.STREAM.MSG.GET.KV_meta", "the id of the log, and how far it was trimmed"),
    Need("$JS.API.STREAM.MSG.GET.KV_trading", "the trading state"),
    Need("$JS.API.STREAM.MSG.GET.KV_checkpoints", "checkpoints"),
    Need("$KV.checkpoints.{consumer}", "its own checkpoints"),
    Need("$JS.API.STREAM.MSG.GET.KV_leases", "who holds a group"),
    Need("$KV.leases.{consumer}", "holding its own groups"),
    Need("$JS.API.DIRECT.GET.KV_members", "who is alive"),
    Need("$JS.API.STREAM.MSG.GET.KV_members", "what it lost against, where a follower did not know it yet"),
    Need("$KV.members.*", "its sign of life"),
    Need("$JS.API.DIRECT.GET.KV_partitions", "who owns what"),
    Need("$JS.API.STREAM.MSG.GET.KV_partitions", "what it lost against, where a follower did not know it yet"),
    Need("$KV.partitions.{group}.*", "owning partitions of its own groups"),
    Need("dlq.{group}.>", "putting aside what it cannot handle"),
    Need("$JS.API.DIRECT.GET.DEAD_LETTERS", "what a person decided about that"),
    Need("$JS.API.STREAM.MSG.GET.DEAD_LETTERS", "what a person decided about that"),
    Need("botplatform.ownership", "telling others that ownership changed", subscribe="botplatform.ownership"),
    Need("", "answers", subscribe="{inbox}.>"),
)
"""What every engine needs."""

SHARED: Final = (
    # {shared} is repeated for the shared groups
    Need("$JS.API.CONSUMER.INFO.{stream}.{shared}", "how the group is set up"),
    Need("$JS.API.CONSUMER.MSG.NEXT.{stream}.{shared}", "pulling its share"),
    Need("$JS.ACK.{stream}.{shared}.>", "answering: handled, again later, never again"),
    Need("$JS.ACK.*.*.{stream}.{shared}.>", "answering, in the newer form"),
)
"""What a process needs for groups that it shares: they are nobody's, so there is no lease and no checkpoint."""

RUNTIME_TYPES: Final = ("system.heartbeat", "system.error", "system.warning", "system.recovery")
"""What the runtime publishes for every engine."""

EXTRA_TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "execution": ("order.*",),  # what the venue reports
}
"""What the runtime publishes for one engine beyond what that declares."""

EXTRA: Final[Mapping[str, tuple[Need, ...]]] = {
    "execution": (
        Need("$JS.API.STREAM.MSG.GET.KV_accounts", "the limit of the account"),
        Need("$KV.accounts.*", "reserving within the limit of the account"),
        Need("venue.*.*.*", "asking the paper venue that runs as its own process", subscribe="venue.*.*.reports.*"),
    ),
}
"""What one engine needs beyond `ENGINE`."""

ROLES: Final[Mapping[str, tuple[Need, ...]]] = {
    "setup": (
        Need("$JS.API.>", "creating streams and consumers, and purging old ticks"),
        Need("$KV.meta.*", "the id of the log, and how far it was trimmed"),
        Need("$KV.checkpoints.*", "putting back one checkpoint that was lost"),
        Need("$JS.SNAPSHOT.ACK.>", "backing up streams, with the nats CLI"),
        Need("$JS.SNAPSHOT.RESTORE.>", "restoring them"),
        Need("", "answers", subscribe="{inbox}.>"),
    ),
    "operator": (
        Need("evt.trading.*.*", "announcing halt, reduce and resume"),
        Need("$KV.trading.*", "halt, reduce and resume"),
        Need("evt.*.*.*", "publishing by hand"),
        Need("$JS.API.INFO", "whether there is a JetStream"),
        Need("$JS.API.STREAM.INFO.*", "where the log ends"),
        Need("$JS.API.DIRECT.GET.*", "reading the log, dead letters and buckets"),
        Need("$JS.API.STREAM.MSG.GET.*", "reading the log, dead letters and buckets"),
        Need("$JS.API.CONSUMER.LIST.{stream}", "how far the groups are"),
        Need("dlq.>", "deciding about dead letters"),
        Need("", "answers", subscribe="{inbox}.>"),
        *(
            Need("", "watching", subscribe=f"{domain}.>")
            for domain in sorted({name.split(".")[0] for name in CATALOGUE})
        ),
    ),
    "venue": (
        Need("venue.*.*.reports.*", "reports", subscribe="venue.*.*.*"),
        Need("$JS.API.INFO", "whether there is a JetStream"),
        Need("", "the market", subscribe="market.snapshot"),
        Need("", "answers", subscribe="{inbox}.>"),
    ),
    "probe": (
        Need(f"evt.market.snapshot.{PROBE_SYMBOL}", "a tick of a symbol that nobody trades"),
        Need(f"evt.strategy.decision.{PROBE_SYMBOL}", "a decision that has to be denied"),
        Need("$JS.API.INFO", "whether there is a JetStream"),
        Need("$JS.API.STREAM.INFO.{stream}", "where the log ends"),
        Need("$JS.API.DIRECT.GET.{stream}", "reading what came of it"),
        Need("$JS.API.STREAM.MSG.GET.{stream}", "whether what a follower gave is all"),
        Need("$JS.API.STREAM.MSG.GET.KV_meta", "the id of the log"),
        Need("$JS.API.CONSUMER.LIST.{stream}", "whether every group has handled it"),
        Need("", "answers", subscribe="{inbox}.>"),
    ),
    "tap": tuple(
        Need("", "watching", subscribe=f"{domain}.>") for domain in sorted({name.split(".")[0] for name in CATALOGUE})
    ),
}
"""What users need that are no engines. `tap` is for people: it sees every event, and can publish nothing."""

ANSWERING: Final = ("venue",)
"""Roles that answer requests."""


def connection_name(engines: Sequence[str]) -> str:
    """Return the name of a process's connection, which its inbox begins with: the engine where it runs one."""
    return engines[0] if len(engines) == 1 else SHARED_NAME


def engine_permissions(
    engines: Iterable[str],
    *,
    groups: Iterable[str],
    consumers: Iterable[str],
    publishes: Iterable[str],
    stream: str,
    inbox: str = "",
    shared: Iterable[str] = (),
) -> Permissions:
    """Return what a process with these engines needs.

    `groups` and `consumers` are those of its engines, `publishes` the types that they declare, `inbox` the first
    token of its inbox (default: by the name of the connection), `shared` the groups that it shares with others.
    """
    names = tuple(engines)
    types = {*publishes, *RUNTIME_TYPES, *(one for name in names for one in EXTRA_TYPES.get(name, ()))}
    values = {
        "type": sorted(one for one in types if f"{one.split('.')[0]}.*" not in types - {one}),
        "group": list(groups),
        "consumer": list(consumers),
        "shared": list(shared),
        "stream": [stream],
        "inbox": [inbox or f"_INBOX_{connection_name(names)}"],
    }
    return _expand([*ENGINE, *SHARED, *(need for name in names for need in EXTRA.get(name, ()))], values)


def role_permissions(role: str, *, stream: str, inbox: str = "") -> Permissions:
    """Return what a user of `ROLES` needs."""
    values = {"stream": [stream], "inbox": [inbox or f"_INBOX_{role}"]}
    return _expand(ROLES[role], values)._replace(answers=role in ANSWERING)


def render(users: Mapping[str, Permissions]) -> str:
    """Return a piece of configuration of the NATS server; passwords come from its environment."""
    lines = ["authorization {", "  users = ["]
    for name, allowed in users.items():
        variable = f"${name.upper().replace('-', '_')}_PASSWORD"
        lines += ["    {", f"      user: {json.dumps(name)}, password: {variable}", "      permissions: {"]
        for verb, subjects in (("publish", allowed.publish), ("subscribe", allowed.subscribe)):
            if not subjects:
                lines.append(f'        {verb}: {{ deny: ">" }}')
                continue
            lines.append(f"        {verb}: {{ allow: [")
            lines += [f"          {json.dumps(subject)}" for subject in subjects]
            lines.append("        ] }")
        if allowed.answers:
            lines.append("        allow_responses: true")
        lines += ["      }", "    }"]
    return "\n".join([*lines, "  ]", "}"])


def as_config(allowed: Permissions) -> dict[str, Any]:
    """Return the `permissions` of one user in the server's configuration, as plain data."""
    return {
        "publish": {"allow": list(allowed.publish)} if allowed.publish else {"deny": ">"},
        "subscribe": {"allow": list(allowed.subscribe)} if allowed.subscribe else {"deny": ">"},
        **({"allow_responses": True} if allowed.answers else {}),
    }


def _expand(needs: Iterable[Need], values: Mapping[str, Sequence[str]]) -> Permissions:
    needs = tuple(needs)
    return Permissions(
        tuple(dict.fromkeys(one for need in needs for one in _filled(need.publish, values))),
        tuple(dict.fromkeys(one for need in needs for one in _filled(need.subscribe, values))),
    )


def _filled(template: str, values: Mapping[str, Sequence[str]]) -> list[str]:
    """Repeat a template for every combination of what is in its braces."""
    if not template:
        return []
    names = [name for name in values if f"{{{name}}}" in template]
    return [
        template.format_map(dict(zip(names, chosen, strict=True)))
        for chosen in product(*(values[name] for name in names))
    ]
