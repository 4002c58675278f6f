"""Write what the Helm chart takes from the code: `python -m botplatform.docs.chart [FOLDER]`.

By default into `charts/botplatform`: the permissions of every user of the NATS server, the alerts and the dashboard of
the metrics, and the schema of the values.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from botplatform.bootstrap import ENGINES
from botplatform.bus.jetstream.permissions import ROLES, as_config
from botplatform.cli.permissions import permissions_of
from botplatform.docs.alerts import alerts_file
from botplatform.docs.chart_schema import values_schema
from botplatform.docs.dashboard import dashboard_file
from botplatform.settings import Settings

__all__ = ["PARTITION", "STREAM", "USERS", "chart_files", "permissions_file"]

USERS: Final = (*ENGINES, *ROLES)
"""Every user of the NATS server that the chart sets up."""
PARTITION: Final = "{partition}"
"""Stands for the number of a partition; the chart repeats the subject for each one."""
STREAM: Final = "{stream}"
"""Stands for the name of the log's stream."""


def chart_files() -> dict[str, str]:
    """Return every generated file of the chart: path below the chart to text."""
    return {
        "files/alerts.json": _json(alerts_file()),
        "files/dashboard.json": _json(dashboard_file()),
        "files/permissions.json": permissions_file(),
        "values.schema.json": _json(values_schema()),
    }


def permissions_file() -> str:
    """Return the permissions by user as JSON, with `{partition}` and `{stream}` in subjects that name them."""
    settings = Settings()
    bus = settings.bus.model_copy(update={"stream": STREAM})
    named = settings.model_copy(update={"bus": bus})
    users = {user: as_config(permissions_of(user, named, (PARTITION,))) for user in USERS}
    return _json(users)


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def main(folder: Path) -> None:
    """Write every file below a folder, and print where."""
    for name, text in chart_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("charts/botplatform"))
