"""Log records: their two forms, and which events get one."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from botplatform.core.event_bus import InMemoryEventBus
from botplatform.core.events import CATALOGUE, Event, Severity, SystemEvent
from botplatform.errors import InvalidEvent
from botplatform.settings import LogSettings
from botplatform.telemetry.logs import EventLogger, configure_logging, iso_ns, level_of
from botplatform.testing import START_NS, decision, event, market, order, signal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def settings(**fields: Any) -> LogSettings:
    return LogSettings.model_validate(fields)


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def trouble(severity: Severity | None, event_type: str = "system.error") -> Event:
    return event(event_type, SystemEvent("signals", "it broke", severity))


def test_a_terminal_gets_text_and_a_pipe_gets_json() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    configure_logging(settings(), terminal)
    logging.getLogger("botplatform.bus").info("connected to %s", "nats")
    configure_logging(settings(), pipe)
    logging.getLogger("botplatform.bus").info("connected to %s", "nats")
    assert terminal.getvalue().endswith(" INFO     bus: connected to nats\n")
    (record,) = records(pipe)
    assert (record["level"], record["logger"], record["message"]) == ("info", "botplatform.bus", "connected to nats")


@pytest.mark.parametrize(("chosen", "stream"), [("json", Terminal()), ("text", io.StringIO())])
def test_the_format_can_be_chosen(chosen: str, stream: io.StringIO) -> None:
    configure_logging(settings(format=chosen), stream)
    logging.getLogger("x").info("hello")
    assert stream.getvalue().startswith("{") is (chosen == "json")


def test_the_level_is_the_least_severe_that_is_written() -> None:
    stream = io.StringIO()
    configure_logging(settings(level="warning"), stream)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger("botplatform").log(level, "%s", level)
    assert [record["level"] for record in records(stream)] == ["warning", "error"]


def test_configuring_again_replaces_and_leaves_handlers_of_others() -> None:
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    first, second = io.StringIO(), io.StringIO()
    configure_logging(settings(), first)
    configure_logging(settings(), second)
    logging.getLogger("x").info("hello")
    assert (first.getvalue(), len(records(second))) == ("", 1)
    assert other in logging.getLogger().handlers


def test_a_json_record_has_the_exception_and_the_time_in_nanoseconds() -> None:
    stream = io.StringIO()
    alone = logging.getLogger("alone")
    alone.propagate = False  # pytest keeps records for its report, and cannot hand on what cannot be encoded
    alone.addHandler(configure_logging(settings(), stream))
    try:
        raise ValueError("half a pair: \ud800")
    except ValueError:
        alone.exception("it failed\non two lines")
    (record,) = records(stream)
    assert record["message"] == "it failed\non two lines"
    assert "ValueError: half a pair: ?" in record["exception"]
    assert len(record["timestamp"]) == len("2023-11-14T22:13:20.000000000Z")


def test_libraries_and_warnings_of_python_are_records_as_well() -> None:
    stream = io.StringIO()
    configure_logging(settings(), stream)
    logging.getLogger("nats.aio.client").warning("slow consumer")
    warnings.showwarning("old", DeprecationWarning, "somewhere.py", 1)
    assert [record["logger"] for record in records(stream)] == ["nats.aio.client", "py.warnings"]
    captured = warnings.showwarning
    configure_logging(settings(), Terminal())
    assert warnings.showwarning is not captured, "people see them as ever"


def test_a_field_that_json_does_not_know_is_written_as_text() -> None:
    stream = io.StringIO()
    configure_logging(settings(), stream)
    fields = {"money": Decimal("1.50"), "secret": SecretStr("hush"), "level": "not this one"}
    logging.getLogger("x").info("hello", extra={"fields": fields})
    (record,) = records(stream)
    assert (record["money"], record["level"]) == ("1.50", "info")
    assert "hush" not in stream.getvalue()


def test_text_shows_tracebacks_colours_and_nothing_that_moves_the_cursor() -> None:
    terminal = Terminal()
    configure_logging(settings(), terminal)
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("x").exception("bad \x1b[2J message\nand more")
    first, *rest = terminal.getvalue().splitlines()
    assert first.startswith("\x1b[31m")
    assert first.endswith("ERROR    x: bad \ufffd[2J message and more\x1b[0m")
    assert rest[-1] == "ValueError: why"


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    configure_logging(settings(), terminal)
    logging.getLogger("x").error("plain")
    assert "\x1b" not in terminal.getvalue()


def test_times_are_exact_to_the_nanosecond() -> None:
    assert iso_ns(START_NS + 1) == "2023-11-14T22:13:20.000000001Z"
    assert iso_ns(0) == "1970-01-01T00:00:00.000000000Z"


def test_an_event_gets_one_record_with_its_ids() -> None:
    stream = io.StringIO()
    log = settings()
    configure_logging(log, stream)
    bus = InMemoryEventBus()
    events = EventLogger(log.events, level=log.level)
    for pattern in events.patterns():
        bus.subscribe(pattern, events.handle)
    made = order("order.filled", cause=decision(), last_qty=Decimal(1), last_px=Decimal("42000.50"), trade_id="t")
    for one in (market(), signal(), made):
        bus.publish(one)
    (record,) = records(stream)
    assert record["message"] == "order.filled BTCUSDT BUY 1 @ 42000.5 (test_strategy)"
    assert {name: record[name] for name in ("type", "id", "correlation_id", "causation_id", "key", "source")} == {
        "type": "order.filled",
        "id": made.id,
        "correlation_id": made.correlation_id,
        "causation_id": made.causation_id,
        "key": "BTCUSDT",
        "source": "execution",
    }
    assert (record["level"], record["logger"]) == ("info", "botplatform.events")
    assert record["event_timestamp"] == iso_ns(made.timestamp_ns)


def test_text_ends_with_the_start_of_the_chain() -> None:
    terminal = Terminal()
    configure_logging(settings(), terminal)
    made = decision()
    EventLogger().handle(made)
    assert terminal.getvalue().endswith(f"(test_strategy) [{made.correlation_id[:8]}]\n")


@pytest.mark.parametrize(
    ("level", "silent", "heard"),
    [
        ("debug", [], ["market.snapshot", "signal.snapshot", "system.heartbeat", "order.filled"]),
        ("info", ["market.snapshot", "signal.snapshot", "system.heartbeat"], ["strategy.decision"]),
        ("error", ["strategy.decision", "order.filled"], ["system.warning", "system.error"]),
    ],
)
def test_only_what_can_be_written_at_the_level_is_heard(level: str, silent: list[str], heard: list[str]) -> None:
    patterns = EventLogger(level=level).patterns()
    assert set(heard) <= set(patterns) <= set(CATALOGUE)
    assert not set(silent) & set(patterns)


def test_records_can_be_narrowed_by_type_or_turned_off() -> None:
    assert EventLogger(("order.filled", "market.*")).patterns() == ("order.filled",)
    assert EventLogger(()).patterns() == ()
    with pytest.raises(InvalidEvent, match="matches no event type"):
        EventLogger(("orders.*",))


@pytest.mark.parametrize(
    ("made", "level"),
    [
        (market(), logging.DEBUG),
        (decision(), logging.INFO),
        (order("order.rejected"), logging.INFO),
        (event("system.heartbeat", SystemEvent("m", severity=Severity.INFO)), logging.DEBUG),
        (trouble(None), logging.ERROR),
        (trouble(None, "system.warning"), logging.WARNING),
        (trouble(Severity.CRITICAL), logging.CRITICAL),
        (trouble(Severity.ERROR, "system.warning"), logging.ERROR),
        (trouble(Severity.INFO, "system.warning"), logging.INFO),
    ],
)
def test_warnings_and_errors_are_as_bad_as_they_say(made: Event, level: int) -> None:
    assert level_of(made) == level


def test_a_warning_below_the_level_is_not_written() -> None:
    stream = io.StringIO()
    configure_logging(settings(level="error"), stream)
    events = EventLogger(level="error")
    events.handle(trouble(None, "system.warning"))
    events.handle(market())
    events.handle(trouble(Severity.ERROR, "system.warning"))
    assert [record["level"] for record in records(stream)] == ["error"]


async def test_on_a_loop_it_is_the_same() -> None:
    stream = io.StringIO()
    configure_logging(settings(), stream)
    await EventLogger().handle_async(decision())
    assert len(records(stream)) == 1
