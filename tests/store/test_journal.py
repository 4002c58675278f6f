"""The journal is a fold of the order events: batches, repetition and crashes change nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from botplatform.core.events import Event
from botplatform.store.event_store import StoredFill
from botplatform.store.schema import MEMORY
from botplatform.store.sqlite import SqliteEventStore
from botplatform.testing import fill, order
from botplatform.trading.orders import OrderRecord

D = Decimal


def life(order_id: str) -> list[Event]:
    def at(event_type: str) -> Event:
        return order(event_type, order_id=order_id, quantity=3)

    def executed(number: int) -> Event:
        trade_id = f"{order_id}-{number}"
        return fill(100 + number, 3, order_id=order_id, last_qty=1, filled_qty=number, trade_id=trade_id, commission=1)

    return [
        at("order.submitted"),
        at("order.unknown"),
        at("order.accepted"),
        executed(1),
        executed(2),
        at("order.cancelled"),
        executed(3),
    ]


def journal(store: SqliteEventStore) -> tuple[list[OrderRecord], list[StoredFill]]:
    return list(store.orders()), list(store.fills())


def written(batches: list[list[Event]]) -> tuple[list[OrderRecord], list[StoredFill]]:
    with SqliteEventStore(MEMORY) as store:
        for batch in batches:
            store.append([(event, None) for event in batch])
        return journal(store)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_batches_and_redelivery_make_no_difference(data: st.DataObject) -> None:
    events = data.draw(st.permutations(life("a") + life("b")))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(events) - 1))))
    batches = [events[start:end] for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True)]
    again = [batches[index] for index in data.draw(st.lists(st.integers(0, len(batches) - 1), max_size=3))]
    assert written([*batches, *again]) == written([events])


@settings(max_examples=40, deadline=None)
@given(events=st.permutations(life("a")))
def test_the_order_of_the_reports_changes_neither_status_nor_sums(events: list[Event]) -> None:
    (record,), fills = written([[event] for event in events])
    assert (record.status, record.filled_qty, record.avg_px, record.commission) == ("FILLED", D(3), D(102), D(3))
    assert sorted(one.trade_id for one in fills) == ["a-1", "a-2", "a-3"]


WRITER = """
import sys
from botplatform.store.sqlite import SqliteEventStore
from botplatform.testing import fill, order

with SqliteEventStore(sys.argv[1]) as store:
    number = 0
    while True:
        batch = [order(order_id=f"o{number}")]
        batch += [fill(order_id=f"o{number}", trade_id=f"t{number}", id=f"f{number}")]
        store.append([(event, None) for event in batch])
        print(number, flush=True)
        number += 1
"""


def test_a_killed_process_leaves_every_batch_that_was_acknowledged_and_no_half_one(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = [int(process.stdout.readline()) for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout.read().splitlines() if line]
    process.wait()
    process.stdout.close()
    with SqliteEventStore(path) as store:
        orders, fills = journal(store)
        assert len(orders) >= len(acknowledged) >= 50
        assert len(fills) == len(orders)
        assert store.last_position() == 2 * len(orders)
        assert all(record.status == "FILLED" for record in orders)
