"""Whom a log record is about: engine, partition and chain, without being told at each line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from botplatform.core.log_scope import LogScope, about, within
from botplatform.core.trace_id import trace_id
from botplatform.settings import LogSettings
from botplatform.telemetry.logs import announce, configure_logging
from botplatform.testing import market

CHAIN = "ab" * 16
logger = logging.getLogger("somebody.elses.strategy")


class Order(NamedTuple):
    correlation_id: str


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure_logging(LogSettings(), stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def said(stream: io.StringIO) -> list[dict[str, Any]]:
    names = ("message", "engine", "partition", "correlation_id", "trace_id")
    return [{k: v for k, v in json.loads(line).items() if k in names} for line in stream.getvalue().splitlines()]


async def test_a_record_of_anybody_has_the_engine_and_the_event_that_its_task_has_in_hand(stream: io.StringIO) -> None:
    scope = LogScope("strategy", 3)
    with scope.entered():
        scope.take(market("BTCUSDT", correlation_id=CHAIN))
        logger.info("in hand")
        scope.put()
        logger.info("between two")
    logger.info("outside")
    strategy = {"engine": "strategy", "partition": 3}
    assert said(stream) == [
        {"message": "in hand", **strategy, "correlation_id": CHAIN, "trace_id": CHAIN},
        {"message": "between two", **strategy},
        {"message": "outside"},
    ]


async def test_another_task_of_the_worker_has_its_engine_and_not_its_event(stream: io.StringIO) -> None:
    scope = LogScope("execution", 0)
    with scope.entered():
        scope.take(market("BTCUSDT", correlation_id=CHAIN))

        async def lane() -> None:
            logger.info("waits")
            with within(Order("other")):
                logger.info("sends")
            logger.info("waits again")

        await asyncio.create_task(lane())
        with within(Order("other")):
            logger.info("about something else")
    execution = {"engine": "execution", "partition": 0}
    other = {**execution, "correlation_id": "other", "trace_id": trace_id("other")}
    assert said(stream) == [
        {"message": "waits", **execution},
        {"message": "sends", **other},
        {"message": "waits again", **execution},
        {"message": "about something else", **other},
    ]


async def test_what_a_record_says_itself_counts_before_all_else(stream: io.StringIO) -> None:
    scope = LogScope("portfolio")
    with scope.entered(), within(Order("other")):
        logger.info("of a letter", extra=about(market("BTCUSDT", correlation_id=CHAIN, id="e1")))
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert (record["correlation_id"], record["trace_id"], record["id"]) == (CHAIN, CHAIN, "e1")
    assert "partition" not in record


async def test_a_thread_without_a_loop_and_an_event_without_a_chain_are_no_failure(stream: io.StringIO) -> None:
    scope = LogScope("storage", 0)
    with scope.entered():
        scope.take(Order(""))
        logger.info("no chain")
    thread = threading.Thread(target=logger.info, args=("thread",))
    thread.start()
    thread.join()
    assert said(stream) == [{"message": "no chain", "engine": "storage", "partition": 0}, {"message": "thread"}]


def test_text_for_people_has_the_start_of_the_chain(stream: io.StringIO) -> None:
    configure_logging(LogSettings(format="text"), stream)
    with within(Order(CHAIN)):
        logger.info("hello")
    assert stream.getvalue().endswith("hello [abababab]\n")


@pytest.mark.parametrize("level", ["info", "error"])
def test_an_announcement_is_a_record_among_json_and_a_line_for_people_at_any_level(level: str) -> None:
    log = LogSettings.model_validate({"level": level})
    stream = io.StringIO()
    announce(log, "running, 100 %", stream, engines=["signals"])
    record = json.loads(stream.getvalue())
    assert (record["message"], record["level"], record["engines"]) == ("running, 100 %", "info", ["signals"])
    people = io.StringIO()
    announce(log.model_copy(update={"format": "text"}), "running", people)
    assert people.getvalue() == "running\n"
