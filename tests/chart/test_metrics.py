"""The rules and the dashboard that the chart brings: for this release, as the values say, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from botplatform.bootstrap import ENGINES
from botplatform.docs.alerts import ALERTS, filled_in
from botplatform.docs.promql import TARGET_LABELS

Object = dict[str, Any]
DOCS = Path(__file__).parents[2] / "docs"
ON: Object = {"metrics": {"rules": {"enabled": True}, "dashboards": {"enabled": True}}}
SCOPE = 'namespace="desk",app_kubernetes_io_instance="bot"'
DEFAULTS = {
    "partitions": "16",
    "decisionAge": "5",
    "unknownFor": "2m",
    "lagEvents": "1000",
    "checkpointAgeSeconds": "600",
    "conflatedPercent": "5",
    "logPercent": "90",
    "failovers": "3",
}


def rules_of(rendered: Any) -> dict[str, Object]:
    (rules,) = rendered.of("PrometheusRule")
    (group,) = rules["spec"]["groups"]
    return {rule.get("alert", rule.get("record")): rule for rule in group["rules"]}


def board_of(rendered: Any) -> Object:
    data = rendered.named("ConfigMap", "bot-botplatform-dashboard")["data"]
    ((name, text),) = data.items()
    board: Object = json.loads(text)
    assert name == f"{board['uid']}.json"
    return board


def test_without_being_asked_for_there_is_neither(render: Callable[[str], Any]) -> None:
    rendered = render("defaults")
    assert rendered.of("PrometheusRule") == []
    assert not [one for one in rendered.of("ConfigMap") if "grafana" in str(one["metadata"])]


def test_every_alert_is_there_and_asks_for_this_release_alone(helm: Any) -> None:
    rules = rules_of(helm.render(ON))
    for alert in ALERTS:
        rule = rules.pop(alert.name)
        assert rule["expr"] == filled_in(alert, ENGINES, scope=SCOPE, **DEFAULTS)
        metrics = re.findall(r"\b(?:botplatform|process)_[a-z_]+\b", rule["expr"])
        assert rule["expr"].count(SCOPE) == len(metrics) > 0
        assert "$" not in rule["for"] + rule["expr"]
        assert rule["labels"] == {"severity": alert.severity, "namespace": "desk", "release": "bot"}
    assert rules == {}


def test_every_alert_names_the_section_that_says_what_to_do(render: Callable[[str], Any]) -> None:
    headings = {line.removeprefix("### ").lower() for line in (DOCS / "troubleshooting.md").read_text().splitlines()}
    for rule in rules_of(render("everything on")).values():
        if rule.get("alert", "Mine") == "Mine":
            continue
        page, _, section = rule["annotations"]["runbook_url"].partition("#")
        assert page == "docs/troubleshooting.md"
        assert section in headings
        assert rule["annotations"]["summary"].endswith(".")
        assert len(rule["annotations"]["description"]) > 40 or section == "botplatformdeadletters"


def test_limits_are_those_of_the_values_and_of_the_settings(helm: Any) -> None:
    limits = {"unknownFor": "30s", "lagEvents": 2_000_000, "logPercent": 70, "failovers": 9}
    config = {"bus": {"partitions": 4}, "execution": {"max_decision_age_s": 2.5}}
    rules = rules_of(helm.render({"metrics": {"rules": {"enabled": True, **limits}}, "config": config}))
    assert rules["BotplatformUnknownOrders"]["for"] == "30s"
    assert re.search(r"> 2000000 and .* > 2\.5$", rules["BotplatformBehind"]["expr"])
    assert re.search(r"[^|]\) < 4 or ", rules["BotplatformUnowned"]["expr"])
    assert "> 9 * 4 or" in rules["BotplatformFailingOver"]["expr"]
    assert "> 70 or" in rules["BotplatformLogNearlyFull"]["expr"]


def test_nobody_misses_an_engine_that_is_not_installed(render: Callable[[str], Any], helm: Any) -> None:
    off = {"engines": {"notifications": {"enabled": False}, "market-data": {"enabled": False}}}
    expression = rules_of(helm.render({**ON, **off}))["BotplatformUnowned"]["expr"]
    missed = re.findall(r'absent\(botplatform_owned_partitions\{[^}]*engine="(\w+)"\}\)', expression)
    assert missed == [engine for engine in ENGINES if engine not in ("notifications", "market_data")]


def test_alerts_are_left_out_added_and_labelled_by_choice(render: Callable[[str], Any], helm: Any) -> None:
    rendered = render("everything on")
    rules = rules_of(rendered)
    assert rules.keys() == {alert.name for alert in ALERTS} - {"BotplatformSpansLost"} | {"Mine", "mine"}
    assert rules["Mine"] == {"alert": "Mine", "expr": "vector(1)", "for": "1m"}
    assert rules["BotplatformHalted"]["labels"]["team"] == "desk"
    said = helm.refused({"metrics": {"rules": {"without": ["BotplatformHalt"]}}})
    assert "at '/metrics/rules/without/0': value must be one of" in said


def test_both_can_be_put_into_another_namespace(helm: Any) -> None:
    values = {
        "metrics": {
            "rules": {"enabled": True, "namespace": "monitoring"},
            "dashboards": {"enabled": True, "namespace": "grafana", "datasource": {"url": "http://p:9090"}},
        }
    }
    rendered = helm.render(values)
    assert rendered.of("PrometheusRule")[0]["metadata"]["namespace"] == "monitoring"
    assert 'namespace="desk"' in rules_of(rendered)["BotplatformHalted"]["expr"]
    found = [one["metadata"]["namespace"] for one in rendered.of("ConfigMap") if "grafana_" in str(one["metadata"])]
    assert found == ["grafana", "grafana"]


def test_the_dashboard_begins_with_this_release_and_is_found_by_grafana(helm: Any) -> None:
    rendered = helm.render(ON)
    metadata = rendered.named("ConfigMap", "bot-botplatform-dashboard")["metadata"]
    assert metadata["labels"]["grafana_dashboard"] == "1"
    board = board_of(rendered)
    assert (board["title"], board["links"]) == ("botplatform bot", [])
    assert re.fullmatch(r"[a-z0-9-]{1,40}", board["uid"])
    chosen = {one["name"]: one["current"].get("value") for one in board["templating"]["list"]}
    assert chosen == {"datasource": None, "namespace": "desk", "release": "bot", "engine": ["$__all"]}
    uids = {
        board["uid"],
        board_of(helm.render({**ON, "nameOverride": "botplatform"}, "bot", "--namespace", "b"))["uid"],
    }
    assert len(uids) == 2, "one Grafana may show releases of several namespaces"


def test_traces_are_a_click_away_where_their_address_is_known(helm: Any, render: Callable[[str], Any]) -> None:
    (name,) = (key for key in render("everything on").named("ConfigMap", "bot-botplatform-datasource")["data"])
    plain = yaml.safe_load(render("everything on").named("ConfigMap", "bot-botplatform-datasource")["data"][name])
    assert plain["datasources"][0]["jsonData"] == {"httpMethod": "POST"}
    values = {
        "config": {"tracing": {"ui_url": "http://jaeger.example/"}},
        "metrics": {"dashboards": {"enabled": True, "datasource": {"url": "http://prometheus:9090"}}},
    }
    rendered = helm.render(values)
    board = board_of(rendered)
    assert [link["url"] for link in board["links"]] == ["http://jaeger.example"]
    ((_, text),) = rendered.named("ConfigMap", "bot-botplatform-datasource")["data"].items()
    (source,) = yaml.safe_load(text)["datasources"]
    assert (source["url"], source["uid"]) == (
        "http://prometheus:9090",
        board["templating"]["list"][0]["current"]["value"],
    )
    (to,) = source["jsonData"]["exemplarTraceIdDestinations"]
    assert (to["name"], to["url"]) == ("trace_id", "http://jaeger.example/trace/$${__value.raw}")


def test_pods_have_the_labels_that_everything_asks_by(render: Callable[[str], Any]) -> None:
    (monitor,) = render("everything on").of("PodMonitor")
    taken = {re.sub(r"\W", "_", label) for label in monitor["spec"]["podTargetLabels"]}
    assert taken == {label for label in TARGET_LABELS if label.startswith("app_")}
    for name, pod in render("everything on").templates():
        assert {"app.kubernetes.io/instance", "app.kubernetes.io/component"} <= pod["metadata"]["labels"].keys(), name
