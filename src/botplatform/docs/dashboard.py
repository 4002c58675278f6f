"""The dashboard for Grafana, made of the panels and the catalogue of metrics: `charts/botplatform/files/dashboard.json`.

`<release>` and `<namespace>` stand for the install whose chart it comes with; others can be chosen on the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from botplatform.docs.panels import ROWS, Panel, Query
from botplatform.docs.promql import RELEASE, named_in, scoped
from botplatform.telemetry.metrics_catalogue import Kind

__all__ = ["SCOPE", "TITLE", "dashboard_file", "queries"]

Object = dict[str, Any]
TITLE: Final = "botplatform"
SCOPE: Final = f'namespace=~"$namespace",{RELEASE}=~"$release"'
"""What each query asks by: the variables of the page."""
SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
HEIGHT: Final = {"stat": 4, "timeseries": 8}
WIDTH: Final = 24
_SINCE_SCHEMA: Final = 39
"""Of Grafana 10.4; newer ones bring it up to date when they load it."""


def dashboard_file() -> Object:
    """Return the dashboard as Grafana's JSON, without its id."""
    return {
        "uid": "<uid>",
        "title": f"{TITLE} <release>",
        "description": "Made by `python -m botplatform.docs` of the catalogue of metrics: docs/metrics.md says what each means.",
        "tags": [TITLE, "trading"],
        "schemaVersion": _SINCE_SCHEMA,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [],
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }


def queries() -> Iterator[tuple[Panel, Query, str]]:
    """Yield every query of the dashboard: its panel, itself, and its expression as Grafana has it."""
    for _, panels in ROWS:
        for panel in panels:
            for query in panel.queries:
                yield panel, query, scoped(query.expression, SCOPE)


def _variables() -> Iterator[Object]:
    yield {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "refresh": 1,
        "regex": "",
    }
    info = "botplatform_build_info"
    here = 'namespace=~"$namespace"'
    yield _labels("namespace", "Namespace", f"label_values({info}, namespace)", "<namespace>")
    yield _labels("release", "Release", f"label_values({scoped(info, here)}, {RELEASE})", "<release>")
    partitions = scoped("botplatform_owned_partitions", SCOPE)
    yield _labels("engine", "Engine", f"label_values({partitions}, engine)", "", several=True)


def _labels(name: str, label: str, query: str, value: str, *, several: bool = False) -> Object:
    """Make a variable of the values that a label has; one that takes several begins with all, those without label too."""
    current = {"text": value, "value": value} if value else {"text": ["All"], "value": ["$__all"]}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"{name}s"},
        "current": {"selected": True, **current},
        "includeAll": True,
        "allValue": ".*",
        "multi": several,
        "hide": 0,
        "refresh": 2,
        "regex": "",
        "sort": 1,
    }


def _panels() -> Iterator[Object]:
    number, top = 0, 0
    for title, panels in ROWS:
        number += 1
        place = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        top += 1
        left, height = 0, 0
        for panel in panels:
            if left + panel.width > WIDTH:
                left, top, height = 0, top + height, 0
            number += 1
            height = max(height, HEIGHT[panel.kind])
            place = {"h": HEIGHT[panel.kind], "w": panel.width, "x": left, "y": top}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            left += panel.width
        top += height


def _panel(panel: Panel) -> Object:
    stat = panel.kind == "stat"
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": _about(panel),
        "datasource": SOURCE,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": [_red(name) for name in panel.red_names]},
        "options": _stat_options(panel) if stat else _series_options(),
        "targets": [_target(query, panel, place) for place, query in enumerate(panel.queries)],
    }


def _about(panel: Panel) -> str:
    """Tell what is shown: the meaning of each metric, once."""
    found = {each.name: each.meaning for query in panel.queries for each in named_in(query.expression)}
    return "\n\n".join(f"`{name}`: {meaning}" for name, meaning in found.items())


def _target(query: Query, panel: Panel, place: int) -> Object:
    return {
        "refId": chr(ord("A") + place),
        "datasource": SOURCE,
        "expr": scoped(query.expression, SCOPE),
        "legendFormat": query.legend or panel.title,
        "exemplar": panel.exemplars,
        "instant": panel.kind == "stat",
        "range": panel.kind != "stat",
        "editorMode": "code",
    }


def _defaults(panel: Panel) -> Object:
    steps: list[Object] = [{"color": "green", "value": None}]
    if panel.red_from is not None:
        steps.append({"color": "red", "value": panel.red_from})
    found: Object = {
        "unit": panel.unit or _unit(panel.queries),
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.kind == "timeseries":
        style = "off" if panel.red_from is None else "line"
        found["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 8,
            "showPoints": "never",
            "spanNulls": False,
            "thresholdsStyle": {"mode": style},
        }
    return found


def _unit(found: Iterable[Query]) -> str:
    """Return the unit that the first metric's name says: a rate of a counter is a second's, an increase a number."""
    expression = next(iter(found)).expression
    metric = next(named_in(expression))
    if metric.kind is Kind.COUNTER:
        return "short" if "increase(" in expression else "eps"
    for ending, unit in (("_seconds", "s"), ("_bytes", "bytes"), ("_ratio", "percentunit")):
        if metric.name.endswith(ending):
            return unit
    return "short"


def _red(name: str) -> Object:
    color = {"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}}
    return {"matcher": {"id": "byName", "options": name}, "properties": [color]}


def _stat_options(panel: Panel) -> Object:
    return {
        "colorMode": "background" if panel.red_names or panel.red_from is not None else "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "textMode": "name" if panel.red_names else "value",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    }


def _series_options() -> Object:
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
