"""Copies one event store into another: from a file into a database, when the platform moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice, zip_longest
from typing import Final, NamedTuple

from botplatform.errors import StoreError
from botplatform.store.event_store import EventStore
from botplatform.trading.orders import OrderRecord

__all__ = ["Copied", "copy_store"]

BATCH: Final = 1_000
"""Events in one transaction."""


class Copied(NamedTuple):
    """What a copy did."""

    events: int
    """Events that were copied now; those of an earlier copy that was interrupted are not among them."""
    orders: int
    """Orders in the journal of the copy."""
    fills: int
    """Executions in the journal of the copy."""
    differing: tuple[str, ...]
    """Ids of orders or trades that one of the two journals has otherwise, or not at all."""


def copy_store(source: EventStore, target: EventStore, told: Callable[[int], object] = lambda _count: None) -> Copied:
    """Copy all events with their places in the log; the journal is folded from them again, and then compared.

    One that was interrupted goes on where it stopped. `told` is called with the count after each batch. Raises
    `StoreError` when the target has events that the source has not.
    """
    events = source.read(after=_begin(source, target))
    count = 0
    while batch := list(islice(events, BATCH)):
        target.append([(each.event, each.sequence) for each in batch])
        count += len(batch)
        told(count)
    orders = _differing(source.orders(), target.orders(), _order_facts)
    fills = _differing(source.fills(), target.fills(), lambda fill: (fill.trade_id, *fill))
    return Copied(count, orders[0], fills[0], (*orders[1], *fills[1]))


def _begin(source: EventStore, target: EventStore) -> int:
    """Return the position in the source of the newest event that the target has; 0 when it has none."""
    last = target.last_position()
    if not last:
        return 0
    newest = next(target.read(after=last - 1)).event.id
    found = source.by_id(newest)
    if found is None:
        raise StoreError(
            f"the event store {target.where} has events that {source.where} has not, as {newest}: copy into an empty one"
        )
    return found.position


def _differing(
    ours: Iterable[NamedTuple | OrderRecord],
    theirs: Iterable[NamedTuple | OrderRecord],
    facts: Callable[..., tuple[object, ...]],
) -> tuple[int, list[str]]:
    """Return how many there are of theirs, and the ids of those that differ."""
    count, differing = 0, []
    for one, other in zip_longest(ours, theirs):
        count += other is not None
        told = [facts(each) for each in (one, other) if each is not None]
        if len(told) < 2 or told[0] != told[1]:
            differing.append(str(told[0][0]))
    return count, differing


def _order_facts(order: OrderRecord) -> tuple[object, ...]:
    """Return what an order has in every journal; its number among others depends on what was deleted before it."""
    return (order.order_id, order.status, order.filled_qty, order.avg_px, order.commission, order.trades, order.reports)
