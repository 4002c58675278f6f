"""What to do when an alert fires, and the list of them, for the pages."""

from __future__ import annotations

import re
from typing import Final

from botplatform.docs.alerts import ALERTS
from botplatform.docs.docstrings import one_line
from botplatform.docs.tables import table

__all__ = ["PAGE", "SECTION", "alerts_section", "alerts_table", "anchor"]

PAGE: Final = "troubleshooting.md"
SECTION: Final = "Alerts"
_LABEL: Final = re.compile(r"\{\{ \$labels\.(\w+) \}\}")
_VALUE: Final = re.compile(r"\{\{ \$value[^}]*\}\}")


def anchor(name: str) -> str:
    """Return the fragment of the heading of an alert."""
    return name.lower()


def alerts_section() -> list[str]:
    """Return a heading and what to do for each alert."""
    parts = [
        f"## {SECTION}",
        "The chart's rules for Prometheus (`metrics.rules.enabled`); each alert has the address of its section here.",
    ]
    for each in ALERTS:
        parts += [f"### {each.name}", f"*{each.severity.value}.* {_plain(each.summary)}", each.todo]
    return parts


def alerts_table() -> str:
    """Return all alerts with what they ask."""
    rows = [
        (
            f"[{each.name}]({PAGE}#{anchor(each.name)})",
            each.severity.value,
            f"`{each.lasts}`",
            "`" + one_line(" or ".join(filter(None, (each.expression, each.each_engine)))) + "`",
        )
        for each in ALERTS
    ]
    return table(("Alert", "Severity", "For", "PromQL"), rows)


def _plain(summary: str) -> str:
    """Replace what Prometheus fills in by its name."""
    return _VALUE.sub("*N*", _LABEL.sub(lambda found: f"*{found[1].rsplit('_', 1)[-1]}*", summary))
