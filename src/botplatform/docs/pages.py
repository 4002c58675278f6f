"""The generated pages: events, settings, reasons, errors, engines, metrics, and the AsyncAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, Final

import botplatform.events.v1.payloads as generated
from botplatform import errors
from botplatform.core.events import CATALOGUE, SPELLINGS, Event
from botplatform.docs.asyncapi import asyncapi_page
from botplatform.docs.docstrings import attributes, docstring, one_line
from botplatform.docs.metrics_page import metrics_page
from botplatform.docs.remedies import remedies_page
from botplatform.docs.settings_page import settings_page
from botplatform.docs.tables import page, table
from botplatform.engines.execution.engine import ExecutionEngine
from botplatform.engines.market_data.engine import MarketDataEngine
from botplatform.engines.monitoring.engine import MonitoringEngine
from botplatform.engines.notifications.engine import NotificationsEngine
from botplatform.engines.notifications.sender import AlertSender
from botplatform.engines.portfolio.engine import PortfolioEngine
from botplatform.engines.signals.engine import SignalsEngine
from botplatform.engines.storage.engine import StorageSink, kept
from botplatform.engines.strategy.engine import StrategyEngine
from botplatform.settings import StorageSettings
from botplatform.trading.reasons import Reason

__all__ = ["engine_rows", "pages"]

ENGINES: Final[tuple[type[Any], ...]] = (
    MarketDataEngine,
    SignalsEngine,
    StrategyEngine,
    ExecutionEngine,
    PortfolioEngine,
    StorageSink,
    MonitoringEngine,
    NotificationsEngine,
    AlertSender,
)
"""Every engine in the order of the flow."""


def pages() -> dict[str, str]:
    """Return every generated page: file name to text."""
    return {
        "events.md": _events(),
        "settings.md": settings_page(),
        "reasons.md": _reasons(),
        "errors.md": _errors(),
        "engines.md": _engines(),
        "metrics.md": metrics_page(),
        "troubleshooting.md": remedies_page(),
        "asyncapi.yaml": asyncapi_page(ENGINES, {engine.name: heard(engine) for engine in ENGINES}),
    }


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _codes(texts: Iterable[str]) -> str:
    return ", ".join(map(_code, texts)) or "nothing"


def _events() -> str:
    about = (
        "An event is an envelope and a payload; both are declared in `proto/botplatform/events/v1/`. In Python they are "
        "frozen: trying to change one raises. Values are checked when an event is made. `Decimal` is exact money, a "
        "decimal string on the wire and in JSON; `float` is a measurement. For tools and other languages the same, with all "
        "subjects and engines, is in [asyncapi.yaml](asyncapi.yaml), by AsyncAPI 3."
    )
    parts = [
        about,
        "## The envelope",
        docstring(Event).split("\n", 1)[0],
        _fields(Event),
        "## Types",
        table(("Type", "Payload"), [(_code(name), _anchor(kind)) for name, kind in CATALOGUE.items()]),
        "Accepted on input as well: "
        + ", ".join(f"`{other}` for `{usual}`" for other, usual in SPELLINGS.items())
        + ".",
        "## Payloads",
    ]
    payloads = list(dict.fromkeys(CATALOGUE.values()))
    for kind in payloads:
        parts += _described(kind)
    parts.append("## Parts of payloads")
    for kind in _structs():
        if kind not in payloads:
            parts += _described(kind)
    parts.append("## Enums")
    for enum in _of_module(StrEnum):
        values = [(_code(each.default.strip("'\"")), each.doc) for each in attributes(enum)]  # type: ignore[arg-type]  # a class is hashable
        parts += [f"### {enum.__name__}", docstring(enum), table(("Value", "Meaning"), values)]
    return page("Events", parts)


def _of_module(base: type[Any]) -> list[type[Any]]:
    found = vars(generated).values()
    return [kind for kind in found if isinstance(kind, type) and issubclass(kind, base) and kind is not base]


def _structs() -> list[type[Any]]:
    from msgspec import Struct  # noqa: PLC0415  # only to tell structs apart

    return _of_module(Struct)


def _anchor(kind: type[Any]) -> str:
    return f"[{kind.__name__}](#{kind.__name__.lower()})"


def _described(kind: type[Any]) -> Sequence[str]:
    return (f"### {kind.__name__}", docstring(kind), _fields(kind))


def _fields(kind: type[Any]) -> str:
    rows = [(_code(a.name), _code(one_line(a.annotation)), _default(a.default), a.doc) for a in attributes(kind)]  # type: ignore[arg-type]  # a class is hashable
    return table(("Field", "Type", "Default", "Meaning"), rows)


def _default(written: str) -> str:
    return {"": "needed", "EMPTY": "`{}`", "ZERO": "`0`"}.get(written, _code(written))


def _reasons() -> str:
    rows = [(_code(each.name), each.doc) for each in attributes(Reason)]
    about = (
        "Why an order was denied, rejected or ended: `reason_code` of `order.*` events. `reason_text` says it for "
        "the order in hand, `reason_by` who said so. A venue's own words are in the text."
    )
    return page("Reasons", [about, table(("Code", "Meaning"), rows)])


def _errors() -> str:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BotPlatformError)
    ]
    rows = [
        (_code(kind.code), _code(kind.__name__), str(kind.exit_code), one_line(docstring(kind).split("\n\n", 1)[0]))
        for kind in kinds
    ]
    about = (
        "Every error that is raised on purpose. The command line prints its message as one sentence on standard "
        "error, without a traceback, and ends with its exit code. Ctrl-C ends with 130, a wrong use of the "
        "command line with 2, a second signal while shutting down with 3."
    )
    return page("Errors", [about, table(("Code", "Class", "Exit code", "Meaning"), rows)])


def engine_rows() -> list[tuple[str, str, str]]:
    """Return name, what it listens to and what it publishes, for every engine."""
    return [(_code(kind.name), _codes(heard(kind)), _codes(kind.publishes)) for kind in ENGINES]


def heard(engine: type[Any]) -> tuple[str, ...]:
    """Return the patterns that an engine listens to, with the default settings."""
    listens: tuple[str, ...] = kept(StorageSettings().events) if engine is StorageSink else engine.listens
    return listens


def _engines() -> str:
    about = (
        "What every engine declares. Publishing what is not declared is an error (`UNDECLARED_EVENT`). Besides, the "
        "runtime publishes `system.heartbeat` for each engine and `system.error` for one that failed; what a venue "
        "reports, the gateway beside execution publishes as `order.*` with the name of the venue as its source."
    )
    parts = [
        about,
        table(("Engine", "Listens to", "Publishes"), engine_rows()),
    ]
    for kind in ENGINES:
        parts += [f"## {kind.name}", docstring(kind)]
    return page("Engines", parts)
