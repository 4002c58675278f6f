"""Execution is killed at each step of a submission, and every action makes exactly one order at the venue.

Two execution processes share four partitions before the paper venue of a third process. In each round all symbols
decide at once, and one process dies at a crash point: the other takes over. Some rounds kill both, or the one that
takes over as well. Then the log and the venue have to agree on every order, execution and leg.

`pytest tests/e2e/test_submission_crashes.py` runs 20 rounds, `pytest -m slow …` 200, and
`CRASH_ROUNDS=1000 pytest -m slow …` a thousand. `CRASH_FIRST=137 CRASH_ROUNDS=1` repeats one round.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import NamedTuple

import pytest

from benches.crashes import SYMBOLS, Engine, Theatre, theatre
from botplatform.core.crash_points import POINTS
from botplatform.core.events import ActionIntent
from botplatform.core.seam import seeded
from botplatform.testing import intent

FIRST = int(os.environ.get("CRASH_FIRST", "0"))
MANY = int(os.environ.get("CRASH_ROUNDS", "200"))
OPENING = (intent("open", "long", "2"), intent("open", "short", "1"))
CLOSING = (intent("close", "long", "2"), intent("close", "short", "1"))


class Fate(NamedTuple):
    """What happens in a round."""

    kind: str
    """`step`: the victim dies on its way; `join`: while it gets its share; `double`: the other one is killed, and the
    victim dies taking over; `again`: the victim dies, the other one is killed, and who comes next dies as well;
    `any`: the victim is killed at any moment; `pause`: it is paused for longer than its lease, and goes on then."""
    point: str = ""
    passing: int = 1

    @property
    def armed(self) -> tuple[str, ...]:
        """The crash points of the processes that it starts, in order; empty for those that have none."""
        if self.kind == "again":
            return ("submitted.after", self.point, "")
        here = f"{self.point}:{self.passing}"
        return {"double": (here, ""), "any": ("",), "pause": (f"{here}:pause",)}.get(self.kind, (here,))


_TAKING = [point for point in POINTS if point.partition(".")[0] in ("claim", "takeover")]
_STARTING = ("publish.before", "write.before", "socket.before")
"""Every process passes these while it starts, how often depends on the rounds before: see `test_replicas.py`."""
_STEPS = [point for point in POINTS if point not in (*_TAKING, *_STARTING)]
_KINDS = ("join", "double", "pause", "double", "again", "again", "any")


def fate_of(number: int) -> Fate:
    """Return what happens in a round: the same in every run."""
    cycle, place = divmod(number, len(_STEPS) + len(_KINDS))
    taking = _TAKING[(place + cycle) % len(_TAKING)]
    if place < len(_STEPS):
        return Fate("step", _STEPS[place], 1 + (cycle + place) % 3)
    kind = _KINDS[place - len(_STEPS)]
    if kind == "pause":
        return Fate(kind, ("send.before", "gate.after", "report.before", "submitted.after")[cycle % 4], 1 + cycle % 2)
    if kind == "again":
        return Fate(kind, ("send.before", "send.after", "gate.after", "report.before")[(cycle * 2 + place) % 4])
    return Fate(kind, taking, {"join": 1 + cycle % 2, "double": 3 + cycle % 2}.get(kind, 1))


async def play(made: Theatre, number: int, survivor: Engine) -> Engine:
    """Play one round; return the process that is left."""
    fate, chance = fate_of(number), seeded("crashes", number)
    actions = CLOSING if made.ledger.held() else OPENING
    armed = fate.armed[0]
    if fate.kind == "join":
        expected = await made.decide(f"round-{number}", SYMBOLS, actions)
        victim = await made.execution(armed)
    else:
        victim = await made.execution(armed)
        await made.shared_by(survivor, victim)
        expected = await made.decide(f"round-{number}", SYMBOLS, actions)
        if fate.kind == "double":
            await asyncio.sleep(chance.random() * 0.03)
            await survivor.killed()
        elif fate.kind == "any":
            await asyncio.sleep(chance.random() * 0.1)
            await victim.killed()
        made.market.set()
    await made.prepare(*fate.armed[1:], *fate_of(number + 1).armed[:1])
    if fate.kind == "pause":
        await resumed(made, expected, actions, survivor, victim)
        return survivor
    await victim.died()
    if fate.kind == "again":
        await survivor.killed()
        await (await made.execution(fate.point)).died()
    if fate.kind in ("again", "double"):
        survivor = await made.execution()
    made.market.set()
    await check(made, expected, actions)
    made.market.clear()
    await made.shared_by(survivor)
    return survivor


async def resumed(
    made: Theatre,
    expected: dict[str, str],
    actions: tuple[ActionIntent, ...],
    survivor: Engine,
    victim: Engine,
) -> None:
    """The victim goes on after the other one has done its work: what it was about to do must not be done."""
    await victim.paused()
    await check(made, expected, actions)
    victim.process.send_signal(signal.SIGCONT)
    await made.shared_by(survivor, victim)
    made.wanted -= len(expected)
    await check(made, expected, actions)
    made.market.clear()
    await victim.killed()
    await made.shared_by(survivor)


async def check(made: Theatre, expected: dict[str, str], actions: tuple[ActionIntent, ...]) -> None:
    """Every action has become exactly one order, at the venue and in the log, and every execution counts once."""
    assert await made.settled(expected) == []
    made.wanted += len(expected)
    audit, ledger = await made.venue.audit(), made.ledger
    assert (audit.orders, audit.ids, audit.repeated) == (made.wanted, made.wanted, {})
    assert {order_id: ledger.submitted[order_id] for order_id in expected} == dict.fromkeys(expected, 1)
    assert [trade for trade, times in ledger.trades.items() if times > 1] == []
    assert [each for each, times in ledger.ids.items() if times > 1] == []
    assert len(ledger.held()) == (0 if actions is CLOSING else 2 * len(SYMBOLS))


async def ordeal(directory: Path, rounds: int) -> None:
    async with theatre(directory) as made:
        made.market.set()
        survivor = await made.execution()
        await made.shared_by(survivor)
        made.market.clear()
        for number in range(FIRST, FIRST + rounds):
            began = made.clock.monotonic_ns()
            try:
                survivor = await play(made, number, survivor)
            except BaseException:
                print(f"round {number} failed: {fate_of(number)}; repeat it with CRASH_FIRST={number} CRASH_ROUNDS=1")
                for engine in made.engines:
                    print(engine.said.name, engine.process.returncode, engine.said.read_text()[-3000:])
                raise
            print(f"round {number}: {fate_of(number)}, {(made.clock.monotonic_ns() - began) / 1e9:.1f} s")
        left = [error async for error in made.bus.replay(["system.error"])]
        assert [delivery.event.payload for delivery in left] == []


async def test_each_action_makes_one_order_wherever_execution_is_killed(tmp_path: Path) -> None:
    assert {fate_of(number).point for number in range(20)} >= set(_STEPS)
    await ordeal(tmp_path, min(20, MANY))


@pytest.mark.slow
@pytest.mark.timeout(max(240, MANY * 15))
async def test_the_same_over_and_over(tmp_path: Path) -> None:
    await ordeal(tmp_path, MANY)
