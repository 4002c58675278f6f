"""Log records: text on a terminal, JSON lines for machines, and one record per event that is asked for.

An event is structure, a record is text: switching records off changes nothing but the log.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import msgspec

from botplatform.core.events import CATALOGUE, Event, Severity, SystemEvent
from botplatform.core.log_scope import record_fields
from botplatform.core.patterns import check_pattern, matches
from botplatform.settings import LogSettings
from botplatform.telemetry.summary import printable, summarise

__all__ = ["EventLogger", "JsonFormatter", "TextFormatter", "announce", "configure_logging", "iso_ns", "level_of"]

LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
_QUIET: Final = ("asyncio", "nats", "matplotlib", "PIL", "urllib3", "apprise", "requests")
"""Libraries whose records below warning say nothing about the platform, or say too much: addresses, for one."""
_FREQUENT: Final = ("market.*", "signal.*", "system.heartbeat")
_SEVERITIES: Final[Mapping[Severity, int]] = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
    Severity.CRITICAL: logging.CRITICAL,
}
_TYPE_LEVELS: Final[Mapping[str, int]] = {
    known: logging.DEBUG if any(matches(pattern, known) for pattern in _FREQUENT) else logging.INFO
    for known in CATALOGUE
} | {"system.warning": logging.WARNING, "system.error": logging.ERROR}
_BY_SEVERITY: Final = frozenset({"system.warning", "system.error"})


def iso_ns(timestamp_ns: int) -> str:
    """Write a time in nanoseconds since the UNIX epoch as ISO 8601, UTC, with nine decimals."""
    seconds, rest = divmod(timestamp_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def level_of(event: Event) -> int:
    """Return the level of an event's record: what is frequent at debug, warnings and errors as bad as they say."""
    payload = event.payload
    if event.type in _BY_SEVERITY and type(payload) is SystemEvent and payload.severity is not None:
        return _SEVERITIES[payload.severity]
    return _TYPE_LEVELS[event.type]


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `timestamp`, `level`, `logger`, `message`, the record's fields, and `exception`.

    Fields are what was logged with `extra={"fields": {...}}`; an event's are `type`, `id`, `correlation_id`,
    `causation_id`, `key`, `source` and `event_timestamp`. A record about an event has its `correlation_id` and
    `trace_id`; one of an engine has `engine` and `partition` (0 where it is not divided).
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; what JSON does not know is written as text."""
        line: dict[str, Any] = {
            "timestamp": iso_ns(round(record.created * 1e6) * 1_000),  # the machine's time is a float: no more is known
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _unicode(record.getMessage()),
        }
        for name, value in record_fields(getattr(record, "fields", {})).items():
            line.setdefault(name, _unicode(value) if isinstance(value, str) else value)
        if record.exc_info:
            line["exception"] = _unicode(self.formatException(record.exc_info))
        return msgspec.json.encode(line, enc_hook=repr).decode()


def _unicode(text: str) -> str:
    return text if text.isascii() else text.encode(errors="replace").decode()


class TextFormatter(logging.Formatter):
    """One line for people: time, level, logger, message, and the start of the correlation id, which finds the chain."""

    _COLOURS: Final = {
        logging.DEBUG: "\x1b[2m",
        logging.WARNING: "\x1b[33m",
        logging.ERROR: "\x1b[31m",
        logging.CRITICAL: "\x1b[1;31m",
    }

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback follows on lines of its own."""
        message = record.getMessage()
        chain = record_fields(getattr(record, "fields", {})).get("correlation_id", "")
        line = (
            f"{datetime.fromtimestamp(record.created, UTC):%H:%M:%S.%f}"[:-3]
            + f" {record.levelname:<8} {record.name.removeprefix('botplatform.')}: "
            + (message if message.isprintable() else printable(message))
            + (f" [{printable(chain[:8])}]" if chain else "")
        )
        if self._colour and record.levelno in self._COLOURS:
            line = f"{self._COLOURS[record.levelno]}{line}\x1b[0m"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class _OurHandler(logging.StreamHandler[TextIO]):
    """Marks the handler that `configure_logging` made, so that calling it again replaces it."""


def configure_logging(log: LogSettings, stream: TextIO | None = None) -> logging.Handler:
    """Send log records to a stream (default: standard error) as the settings say; return the handler.

    With `format: auto`, a terminal gets text and anything else JSON lines, the warnings of Python among them. May be
    called again: the last one counts.
    """
    stream = sys.stderr if stream is None else stream
    colour = stream.isatty() and not os.environ.get("NO_COLOR")
    handler = _OurHandler(stream)
    handler.setFormatter(TextFormatter(colour=colour) if _as_text(log, stream) else JsonFormatter())
    logging.captureWarnings(not _as_text(log, stream))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _OurHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(LEVELS[log.level])
    for name in _QUIET:
        library = logging.getLogger(name)
        library.setLevel(max(library.level, logging.WARNING))
    return handler


def _as_text(log: LogSettings, stream: TextIO) -> bool:
    return log.format == "text" or (log.format == "auto" and stream.isatty())


def announce(log: LogSettings, text: str, stream: TextIO | None = None, **fields: object) -> None:
    """Tell a person that something has begun, on standard error, whatever the level: as a record among JSON records."""
    stream = sys.stderr if stream is None else stream
    line = text
    if not _as_text(log, stream):
        record = logging.LogRecord("botplatform", logging.INFO, "", 0, "%s", (text,), None)
        record.fields = fields
        line = JsonFormatter().format(record)
    stream.write(f"{line}\n")
    stream.flush()


class EventLogger:
    """Writes one record per event: subscribe `handle` to `patterns()`, which has only what is written at `level`.

    `events` are the patterns of the settings; empty turns the records off. Ticks, signals and heartbeats
    are written at debug; decisions and all that follows at info; warnings and errors at their severity.
    """

    def __init__(
        self, events: Iterable[str] = ("*",), *, level: str = "info", logger: logging.Logger | None = None
    ) -> None:
        wanted = [check_pattern(pattern) for pattern in events]
        self._least = LEVELS[level]
        self._logger = logger or logging.getLogger("botplatform.events")
        self._types = tuple(
            known
            for known in CATALOGUE
            if any(matches(pattern, known) for pattern in wanted)
            and (known in _BY_SEVERITY or _TYPE_LEVELS[known] >= self._least)
        )

    def patterns(self) -> tuple[str, ...]:
        """Return the types that can be written at this level: nothing else needs to be heard."""
        return self._types

    def handle(self, event: Event) -> None:
        """Write the record of an event, when its level is on; costs about 0.1 µs when it is not."""
        level = _TYPE_LEVELS[event.type]
        if level < self._least and event.type not in _BY_SEVERITY:
            return
        level = level_of(event)
        if level < self._least or not self._logger.isEnabledFor(level):
            return
        fields = {
            "type": event.type,
            "id": event.id,
            "correlation_id": event.correlation_id,
            "causation_id": event.causation_id,
            "key": event.key,
            "source": event.source,
            "event_timestamp": iso_ns(event.timestamp_ns),
        }
        if event.type == "system.heartbeat":
            fields["engine"] = event.source  # the process gives it, for each of its engines
        self._logger.log(level, "%s", summarise(event), extra={"fields": fields})

    async def handle_async(self, event: Event) -> None:
        """Write the record of an event, on a loop."""
        self.handle(event)
