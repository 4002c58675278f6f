"""Who may talk to whom: the policies, read as a cluster reads them. (No cluster here enforces them.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Object = dict[str, Any]

NATS, PEERS, MONITOR, OTLP, PAGE, HEALTH, DNS, HTTPS = 4222, 6222, 8222, 4318, 16686, 8080, 53, 443
DNS_OF_OPENSHIFT, DNS_OF_GARDENER, STREAMS, DATABASE = 5353, 8053, 9443, 5432
STRANGER: Object = {"labels": {"app": "stranger"}, "namespace": "desk", "ports": {}}
CLIENT: Object = {"labels": {"bot-botplatform-client": "true"}, "namespace": "desk", "ports": {}}
KEDA: Object = {"labels": {"app": "keda-operator"}, "namespace": "keda", "ports": {}}
PROMETHEUS: Object = {"labels": {"app": "prometheus"}, "namespace": "monitoring", "ports": {}}
INTERNET: Object = {"labels": {}, "namespace": "", "ports": {}}
"""An address outside of the cluster."""


def pods_of(rendered: Any) -> dict[str, Object]:
    """Every pod by its component, with labels, namespace and the ports that have names."""
    found = {}
    for _, pod in rendered.templates():
        labels = pod["metadata"]["labels"]
        ports = {
            port["name"]: port["containerPort"]
            for container in pod["spec"]["containers"]
            for port in container.get("ports", ())
        }
        found[labels["app.kubernetes.io/component"]] = {"labels": labels, "namespace": "desk", "ports": ports}
    return found


def means(selector: Object, labels: Object) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", ())
    )


def peer_means(peer: Object, pod: Object) -> bool:
    if "ipBlock" in peer:
        return not pod["namespace"]
    if not pod["namespace"]:
        return False
    namespace = {"kubernetes.io/metadata.name": pod["namespace"], "team": pod["namespace"]}
    if "namespaceSelector" in peer:
        if not means(peer["namespaceSelector"], namespace):
            return False
    elif pod["namespace"] != "desk":
        return False
    return means(peer.get("podSelector", {}), pod["labels"])


def side_allows(policies: list[Object], direction: str, *, this: Object, other: Object, port: int) -> bool:
    """Tell whether one side lets a connection through: nothing selects it, or a rule of what selects it does."""
    kind = {"ingress": "Ingress", "egress": "Egress"}[direction]
    if this["namespace"] != "desk":
        return True
    selecting = [
        policy["spec"]
        for policy in policies
        if kind in policy["spec"]["policyTypes"] and means(policy["spec"]["podSelector"], this["labels"])
    ]
    if not selecting:
        return True
    target = this if direction == "ingress" else other
    for spec in selecting:
        for rule in spec.get(direction, ()):
            peers = rule.get("from" if direction == "ingress" else "to")
            if peers is not None and not any(peer_means(peer, other) for peer in peers):
                continue
            ports = rule.get("ports")
            if ports is None or any(target["ports"].get(one["port"], one["port"]) == port for one in ports):
                return True
    return False


def allowed(rendered: Any, source: Object, target: Object, port: int) -> bool:
    policies = rendered.of("NetworkPolicy")
    out = side_allows(policies, "egress", this=source, other=target, port=port)
    return out and side_allows(policies, "ingress", this=target, other=source, port=port)


def reach(rendered: Any, more: dict[str, Object]) -> set[tuple[str, str, int]]:
    """Every connection that is allowed, as (from, to, port)."""
    pods = {**pods_of(rendered), **more}
    ports = (NATS, PEERS, MONITOR, OTLP, PAGE, HEALTH, DNS, HTTPS, 5432)
    return {
        (source, target, port)
        for source, one in pods.items()
        for target, other in pods.items()
        for port in ports
        if one["labels"].get("app.kubernetes.io/instance") or other["labels"].get("app.kubernetes.io/instance")
        if allowed(rendered, one, other, port)
    }


OUTSIDE = {"stranger": STRANGER, "client": CLIENT, "keda": KEDA, "prometheus": PROMETHEUS, "internet": INTERNET}
ENGINES = {"market-data", "signals", "strategy", "execution", "portfolio", "storage", "monitoring", "notifications"}
RUNNING = ENGINES | {"venue", "janitor"}


def test_by_default_exactly_what_is_needed_is_allowed(render: Callable[[str], Any]) -> None:
    rendered = render("defaults")
    found = reach(rendered, OUTSIDE)
    # names are asked of whoever answers on 53, which is nobody here: no pod of the release lets that in
    found = {one for one in found if not (one[2] == DNS and one[1] in OUTSIDE)}
    wanted = {(one, "nats", NATS) for one in RUNNING | {"setup", "test", "client"}}
    wanted |= {(one, "jaeger", OTLP) for one in RUNNING | {"test"}}
    wanted |= {("test", "jaeger", PAGE), ("client", "jaeger", PAGE)}
    assert found == wanted


def test_everybody_may_ask_for_names(render: Callable[[str], Any]) -> None:
    rendered = render("defaults")
    dns = {"labels": {"k8s-app": "kube-dns"}, "namespace": "kube-system", "ports": {}}
    for component, pod in pods_of(rendered).items():
        assert allowed(rendered, pod, dns, DNS), component
        assert allowed(rendered, pod, dns, DNS_OF_OPENSHIFT), component
        assert allowed(rendered, pod, dns, DNS_OF_GARDENER), component
        assert not allowed(rendered, pod, STRANGER, DNS_OF_GARDENER), component
        assert not allowed(rendered, pod, dns, HTTPS), component


def test_servers_of_a_cluster_reach_each_other_and_nobody_else_reaches_that_port(
    render: Callable[[str], Any],
) -> None:
    found = reach(render("three NATS servers"), OUTSIDE)
    assert {one for one in found if one[2] == PEERS} == {("nats", "nats", PEERS)}


def test_an_external_server_is_reached_on_its_ports_alone(render: Callable[[str], Any]) -> None:
    rendered = render("external NATS")
    signals = pods_of(rendered)["signals"]
    reached = {port for port in (NATS, 5222, HTTPS, 80, PEERS) if allowed(rendered, signals, INTERNET, port)}
    assert reached == {NATS, 5222}
    assert allowed(render("external NATS with nkeys"), signals, INTERNET, NATS), "4222 where the address has none"


def test_keda_and_prometheus_get_in_when_they_are_wanted(render: Callable[[str], Any]) -> None:
    assert {one for one in reach(render("defaults"), OUTSIDE) if one[2] == HEALTH} == set()
    assert {one for one in reach(render("KEDA"), OUTSIDE) if one[2] == HEALTH} == {
        ("keda", one, HEALTH) for one in RUNNING
    }
    everything = {one for one in reach(render("everything on"), OUTSIDE) if one[2] == HEALTH}
    assert {one[0] for one in everything} == {"prometheus"}


def test_the_internet_is_for_those_who_are_named(render: Callable[[str], Any]) -> None:
    rendered = render("everything on")
    pods = pods_of(rendered)
    plain = {one for one in pods if allowed(render("external NATS"), pods[one], INTERNET, HTTPS)}
    assert plain == set()
    policy = rendered.named("NetworkPolicy", "bot-botplatform-internet")
    who = policy["spec"]["podSelector"]["matchExpressions"][0]["values"]
    assert who == ["execution", "notifications"]
    assert allowed(rendered, pods["execution"], INTERNET, HTTPS)
    reached = {one for one in pods if allowed(rendered, pods[one], INTERNET, STREAMS)}
    assert reached == {"execution", "notifications"}


def test_what_else_is_reached_is_reached_by_who_is_named(render: Callable[[str], Any]) -> None:
    rendered = render("everything on")
    pods = pods_of(rendered)
    assert {one for one in pods if allowed(rendered, pods[one], INTERNET, DATABASE)} == {"storage"}


def test_traces_reach_a_collector_of_ones_own(helm: Any) -> None:
    rendered = helm.render({"tracing": {"endpoint": "http://collector.example:4319"}, "jaeger": {"enabled": False}})
    signals, venue = (pods_of(rendered)[name] for name in ("signals", "venue"))
    assert allowed(rendered, venue, INTERNET, 4319)
    assert allowed(rendered, signals, INTERNET, 4319)
    deployment = rendered.named("Deployment", "bot-botplatform-venue")
    given = {each["name"]: each.get("value") for each in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert given["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector.example:4319"
    assert not allowed(rendered, signals, INTERNET, 80)
    secure = helm.render({"tracing": {"endpoint": "https://collector.example/otlp"}})
    assert allowed(secure, signals, INTERNET, HTTPS)


def test_further_peers_of_nats_get_in(render: Callable[[str], Any]) -> None:
    rendered = render("everything on")
    desk = {"labels": {}, "namespace": "desk", "ports": {}}
    assert allowed(rendered, {**desk, "namespace": "desk"}, pods_of(rendered)["nats"], NATS)


@pytest.mark.parametrize("case", ["everything off"])
def test_without_policies_nothing_is_refused(render: Callable[[str], Any], case: str) -> None:
    assert render(case).of("NetworkPolicy") == []
