"""`botplatform permissions`: what each user of the NATS server needs, ready for its configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated

import typer

from botplatform.bootstrap import ENGINES, PARTITIONED, PROCESSING, build_engine, groups
from botplatform.bus.jetstream.permissions import (
    ROLES,
    Permissions,
    as_config,
    engine_permissions,
    render,
    role_permissions,
)
from botplatform.bus.jetstream.setup import partition_consumer
from botplatform.cli.invocation import invocation_of
from botplatform.engines.market_data.engine import MarketDataEngine
from botplatform.engines.notifications.sender import AlertSender
from botplatform.errors import SettingsError
from botplatform.settings import Settings

__all__ = ["permissions", "permissions_of"]

EVERYTHING = "botplatform"
"""The user of a process that runs all engines."""


def permissions(
    ctx: typer.Context,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Engine, or one of {', '.join(ROLES)}; can be given more than once. Default: all of them. "
            f"`{EVERYTHING}` is one user for all engines in one process."
        ),
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, by user.")] = False,
    nats: Annotated[bool, typer.Option("--nats", help="Print configuration of the NATS server (the default).")] = False,
) -> None:
    """Print the NATS permissions that engines need, from what they declare, and those of operators and watchers.

    `tap` is for people: it sees every event under its plain name, as in `nats sub 'order.*'`, and publishes nothing.
    """
    if as_json and nats:
        raise SettingsError("--json and --nats contradict each other: choose one")
    settings = invocation_of(ctx).settings()
    users = {name: permissions_of(name, settings) for name in engine or (*ENGINES, *ROLES)}
    if as_json:
        typer.echo(json.dumps({name: as_config(found) for name, found in users.items()}, indent=2))
        return
    typer.echo(render(users))


def permissions_of(name: str, settings: Settings, partitions: Iterable[int | str] | None = None) -> Permissions:
    """Return the permissions of an engine, a role, or all engines together; raise `SettingsError` for others.

    `partitions` are the numbers of the log's partitions, or what stands for them; by default those of the settings.
    """
    numbers = range(settings.bus.partitions) if partitions is None else tuple(partitions)
    inbox = settings.nats.inbox_prefix
    if name in ROLES:
        return role_permissions(name, stream=settings.bus.stream, inbox=inbox)
    if name not in (*ENGINES, EVERYTHING):
        known = ", ".join((*ENGINES, EVERYTHING, *ROLES))
        raise SettingsError(f"there is no engine or role {name!r}: known are {known}")
    engines = ENGINES if name == EVERYTHING else (name,)
    owned = [*engines, *([AlertSender.name] if "notifications" in engines else [])]
    listening = groups(settings)
    return engine_permissions(
        engines,
        groups=owned,
        consumers=[one for group in owned if group in listening for one in _consumers(group, numbers)],
        publishes=[one for each in engines for one in _publishes(each, settings)],
        stream=settings.bus.stream,
        inbox=inbox,
    )


def _consumers(group: str, partitions: Iterable[int | str]) -> list[str]:
    if group not in PARTITIONED:
        return [group]
    return [partition_consumer(group, number) for number in partitions]


def _publishes(name: str, settings: Settings) -> tuple[str, ...]:
    if name == MarketDataEngine.name:
        return MarketDataEngine.publishes
    return build_engine(name, settings).publishes if name in PROCESSING else ()
