"""Every expression of the alerts and of the dashboard is PromQL, and asks for what the platform really serves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import promql_parser as promql
import pytest

from botplatform.bootstrap import ENGINES
from botplatform.core.events import CATALOGUE as TYPES
from botplatform.core.events import TradingState
from botplatform.docs.alerts import ALERTS, filled_in
from botplatform.docs.dashboard import SCOPE, dashboard_file, queries
from botplatform.docs.panels import ROWS
from botplatform.docs.promql import TARGET_LABELS, definition_of, scoped
from botplatform.errors import SettingsError
from botplatform.telemetry.metrics_catalogue import CATALOGUE, Kind

LIMITS = {
    "partitions": "16", "decisionAge": "5.0", "unknownFor": "2m", "lagEvents": "1000", "checkpointAgeSeconds": "600",
    "conflatedPercent": "5", "logPercent": "90", "failovers": "3",
}  # fmt: skip
RELEASE = 'namespace="desk",app_kubernetes_io_instance="bot"'
EXPRESSIONS = {each.name: filled_in(each, ENGINES, scope=RELEASE, **LIMITS) for each in ALERTS} | {
    f"{panel.title}, {query.legend or panel.title}": text.replace("$__rate_interval", "1m")
    for panel, query, text in queries()
}
COUNTING = {"rate", "increase", "changes"}
"""What makes sense of a counter; `changes` of the time at which a process began."""
GAUGING = {"deriv", "avg_over_time", "changes"}
KNOWN: dict[str, set[str]] = {
    "engine": {*ENGINES, "alert_sender"},
    "type": set(TYPES),
    "state": set(TradingState),
}
"""The values that labels may be compared with."""


def below(node: Any) -> list[Any]:
    found = [getattr(node, name) for name in ("lhs", "rhs", "expr", "vector_selector") if hasattr(node, name)]
    return [*found, *getattr(node, "args", ())]


def selectors(node: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Yield each selector of a metric, and what it stands in, from the outside."""
    if isinstance(node, promql.VectorSelector):
        yield node, above
    for child in below(node):
        yield from selectors(child, (*above, node))


def labels_of(selector: Any) -> set[str]:
    bucket = {"le"} if selector.name.endswith("_bucket") else set()
    return {*definition_of(selector.name).labels, *TARGET_LABELS, *bucket}


def results(node: Any) -> set[str]:
    """The labels that what comes out may have."""
    if isinstance(node, promql.AggregateExpr):
        return set(node.modifier.labels) if node.modifier is not None else set()
    if isinstance(node, promql.VectorSelector):
        return labels_of(node)
    if isinstance(node, promql.Call) and node.func.name == "absent":
        return {matcher.name for found, _ in selectors(node) for matcher in found.matchers.matchers}
    if isinstance(node, promql.Call) and node.func.name == "histogram_quantile":
        return results(node.args[1]) - {"le"}
    if isinstance(node, promql.BinaryExpr):
        sides = [results(side) for side in (node.lhs, node.rhs) if list(selectors(side))]
        return set.union(*sides) if sides else set()
    children = [results(child) for child in below(node)]
    return set.union(*children) if children else set()


@pytest.fixture(params=EXPRESSIONS)
def parsed(request: pytest.FixtureRequest) -> Any:
    return promql.parse(EXPRESSIONS[request.param])


def test_every_metric_and_label_is_in_the_catalogue(parsed: Any) -> None:
    found = list(selectors(parsed))
    assert found
    for selector, above in found:
        known = labels_of(selector)
        matched = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
        assert set(matched) <= known, selector.name
        assert {"namespace", "app_kubernetes_io_instance"} <= matched.keys(), "one release, not all"
        for outer in above:
            if isinstance(outer, promql.AggregateExpr) and outer.modifier is not None:
                assert set(outer.modifier.labels) <= known, selector.name
        for label in matched.keys() & KNOWN.keys():
            if not matched[label].startswith("$"):
                pattern = re.compile(matched[label])
                assert any(pattern.fullmatch(value) for value in KNOWN[label]), matched[label]
                plain = [one for one in matched[label].split("|") if re.fullmatch(r"[\w.]+", one)]
                assert set(plain) <= KNOWN[label], matched[label]


def test_each_kind_of_metric_is_asked_as_its_kind_is(parsed: Any) -> None:
    for selector, above in selectors(parsed):
        kind = definition_of(selector.name).kind
        ranged = isinstance(above[-1], promql.MatrixSelector) if above else False
        function = above[-2].func.name if ranged else ""
        if kind in (Kind.COUNTER, Kind.HISTOGRAM):
            assert function in COUNTING, f"{selector.name} only ever rises"
        else:
            assert not ranged or function in GAUGING, f"{selector.name} is no counter"
        if kind is Kind.HISTOGRAM:
            assert selector.name.endswith(("_bucket", "_sum", "_count"))
        quantile = [one for one in above if isinstance(one, promql.Call) and one.func.name == "histogram_quantile"]
        assert bool(quantile) == selector.name.endswith("_bucket")
        for one in quantile:
            assert "le" in one.args[1].modifier.labels


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_what_an_alert_says_of_labels_its_expression_has(alert: Any) -> None:
    named = set(re.findall(r"\$labels\.(\w+)", alert.summary + alert.todo))
    assert named <= results(promql.parse(EXPRESSIONS[alert.name]))
    assert alert.summary.count("{{") == alert.summary.count("}}")
    assert re.fullmatch(r"\d+(s|m|h)|\$\{unknownFor\}", alert.lasts)
    assert alert.summary.endswith(".")
    assert alert.todo.endswith((".", "?"))


def test_the_legend_of_a_panel_names_labels_that_its_query_has() -> None:
    for panel, query, text in queries():
        named = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
        assert named <= results(promql.parse(text.replace("$__rate_interval", "1m"))), panel.title


def test_a_wrong_name_or_a_wrong_use_is_noticed() -> None:
    with pytest.raises(SettingsError, match="botplatform_lagg is no metric"):
        scoped("sum(botplatform_lagg)", RELEASE)
    with pytest.raises(SettingsError, match="_bucket is no metric"):
        scoped("botplatform_lag_events_bucket", RELEASE)
    with pytest.raises(ValueError, match="parenthesis"):
        promql.parse(scoped("sum(botplatform_lag_events", RELEASE))
    for wrong in ("botplatform_events_in_total", "rate(botplatform_lag_events[1m])", "botplatform_processing_seconds"):
        with pytest.raises(AssertionError):
            test_each_kind_of_metric_is_asked_as_its_kind_is(promql.parse(scoped(wrong, RELEASE)))
    for wrong in ("sum by (symbol) (botplatform_lag_events)", 'botplatform_lag_events{engine="signal"}'):
        with pytest.raises(AssertionError):
            test_every_metric_and_label_is_in_the_catalogue(promql.parse(scoped(wrong, RELEASE)))
    assert scoped('a(process_cpu_seconds_total{x="1"}[5m])', "y") == 'a(process_cpu_seconds_total{y,x="1"}[5m])'


def test_whatever_is_served_is_shown_or_watched() -> None:
    shown = {
        definition_of(selector.name).name
        for text in EXPRESSIONS.values()
        for selector, _ in selectors(promql.parse(text))
    }
    left_out = {each.name for each in CATALOGUE} - shown
    assert left_out == {  # the others are for finding out, not for watching
        "botplatform_lag_known",
        "botplatform_handled_sequence",
        "botplatform_log_trimmed_sequence",
        "botplatform_position_symbols_left_out",
    }


def test_the_dashboard_is_laid_out_without_gaps_in_a_row_or_overlaps() -> None:
    panels = dashboard_file()["panels"]
    assert [one["title"] for one in panels if one["type"] == "row"] == [title for title, _ in ROWS]
    assert [one["id"] for one in panels] == list(range(1, len(panels) + 1))
    taken: set[tuple[int, int]] = set()
    for one in panels:
        place = one["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, one["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    units = {}
    for one in (one for one in dashboard_file()["panels"] if one["type"] != "row"):
        assert "`botplatform_" in one["description"] or "`process_" in one["description"], one["title"]
        units[one["title"]] = one["fieldConfig"]["defaults"]["unit"]
        for target in one["targets"]:
            assert target["legendFormat"]
            assert SCOPE in target["expr"]
            assert target["exemplar"] == ("histogram_quantile" in target["expr"])
    assert (units["Events in, by type"], units["Time that handling takes"], units["Memory"]) == ("eps", "s", "bytes")
    assert (units["Dead letters"], units["Drawdown"], units["Log used"]) == ("short", "percentunit", "percentunit")
