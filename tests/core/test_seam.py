from __future__ import annotations

import time

import pytest

from botplatform.core.seam import Clock, SimulatedClock, SystemClock, derive_id, jitter, random_id, seeded


@pytest.mark.parametrize("clock", [SystemClock(), SimulatedClock()])
def test_both_clocks_are_clocks(clock: Clock) -> None:
    assert isinstance(clock, Clock)


def test_the_system_clock_is_the_machines() -> None:
    before = time.time_ns()
    assert before <= SystemClock().now_ns() <= time.time_ns()
    first = SystemClock().monotonic_ns()
    assert SystemClock().monotonic_ns() >= first


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has one monotonic clock only")
def test_the_monotonic_clock_is_the_one_that_runs_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "clock_gettime_ns", {getattr(time, "CLOCK_BOOTTIME", 7): 42}.__getitem__)
    assert SystemClock().monotonic_ns() == 42


async def test_the_simulated_clock_moves_only_when_it_is_told_and_never_back() -> None:
    clock = SimulatedClock(100)
    assert clock.now_ns() == clock.monotonic_ns() == 100
    clock.advance_to(50)
    assert clock.now_ns() == 100
    await clock.sleep(2.5)
    assert clock.now_ns() == 2_500_000_100


async def test_the_system_clock_waits() -> None:
    begun = time.monotonic()
    await SystemClock().sleep(0.01)
    assert time.monotonic() - begun >= 0.009


def test_derived_ids_are_a_function_of_their_parts() -> None:
    assert derive_id("a", 1) == derive_id("a", 1) == "b4feb303ba68581ff5140f67114e15e6"
    assert len({derive_id("a", 1), derive_id("a", 2), derive_id("a1"), derive_id("a", "1", "")}) == 4
    assert len(derive_id("a")) == 32
    assert int(derive_id("a"), 16)


def test_random_ids_never_come_again() -> None:
    assert len({random_id() for _ in range(1000)}) == 1000


def test_seeded_randomness_can_be_repeated() -> None:
    assert [seeded("x", 1).random() for _ in range(2)] == [seeded("x", 1).random()] * 2
    assert seeded("x", 1).random() != seeded("x", 2).random()


def test_jitter_is_a_share() -> None:
    assert all(0 <= jitter() < 1 for _ in range(100))
