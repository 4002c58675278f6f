"""Every object is what Kubernetes, KEDA and the Prometheus operator take, has its labels, and finds its pods."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from botplatform.bootstrap import ENGINES

Object = dict[str, Any]
SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
CRDS: dict[str, Object] = json.loads((Path(__file__).parent / "crds.json").read_text())
CHART = Path(__file__).parents[2] / "charts" / "botplatform"
OLDEST = "1.29.0"
"""The oldest Kubernetes that the chart is for."""
NEWEST = kubernetes_validate.latest_version()
LABELS = {
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
}
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@cache
def definitions(version: str) -> Registry[Any]:
    contents = json.loads((SCHEMAS / f"v{version}-local-strict" / "_definitions.json").read_text())
    return Resource.from_contents(contents) @ Registry()


@cache
def validator(version: str, api_version: str, kind: str) -> Draft202012Validator:
    if f"{api_version} {kind}" in CRDS:
        return Draft202012Validator(CRDS[f"{api_version} {kind}"])
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = json.loads((SCHEMAS / f"v{version}-local-strict" / f"{kind.lower()}-{group}.json").read_text())
    return Draft202012Validator(schema, registry=Resource.from_contents(schema) @ definitions(version))


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_valid(every: list[Any], version: str) -> None:
    different = {json.dumps(one, sort_keys=True): one for rendered in every for one in rendered.objects}
    wrong = [
        f"{one['kind']}/{one['metadata']['name']} {'.'.join(map(str, error.path))}: {error.message:.200}"
        for one in different.values()
        for error in validator(version, one["apiVersion"], one["kind"]).iter_errors(one)
    ]
    assert wrong == []
    assert len(different) > 150
    assert {"ScaledObject", "PodMonitor", "PrometheusRule", "HorizontalPodAutoscaler", "NetworkPolicy"} <= {
        one["kind"] for one in different.values()
    }


def test_a_wrong_object_is_noticed(render: Callable[[str], Any]) -> None:
    for kind, change in (("Deployment", {"replica": 1}), ("HorizontalPodAutoscaler", {"minReplicas": "1"})):
        one = json.loads(json.dumps(render("defaults").of(kind)[0]))
        one["spec"].update(change)
        assert list(validator(NEWEST, one["apiVersion"], kind).iter_errors(one))
    scaled = json.loads(json.dumps(render("KEDA").of("ScaledObject")[0]))
    scaled["spec"]["triggers"][0]["metadata"]["value"] = 5
    assert list(validator(NEWEST, scaled["apiVersion"], "ScaledObject").iter_errors(scaled))


def test_no_object_is_there_twice_and_each_is_in_the_namespace_and_labelled(rendered: Any) -> None:
    names = Counter((one["kind"], one["metadata"]["name"]) for one in rendered.objects)
    assert [name for name, times in names.items() if times > 1] == []
    for one in rendered.objects:
        if one["metadata"]["name"] in ("more", "bot-text"):
            continue
        metadata = one["metadata"]
        assert metadata["namespace"] == "desk", metadata["name"]
        assert set(metadata["labels"]) >= LABELS, metadata["name"]
        assert metadata["labels"]["app.kubernetes.io/instance"] == "bot"
        assert metadata["name"].startswith("bot-botplatform"), metadata["name"]


def test_labels_and_annotations_for_all_are_on_all(render: Callable[[str], Any]) -> None:
    rendered = render("everything on")
    for one in rendered.objects:
        if one["metadata"]["name"] in ("more", "bot-text"):
            continue
        assert one["metadata"]["labels"]["team"] == "trading", one["metadata"]["name"]
        assert one["metadata"]["annotations"]["example.com/contact"] == "desk", one["metadata"]["name"]
    for name, pod in rendered.templates():
        assert pod["metadata"]["labels"]["team"] == "trading", name
        assert pod["metadata"]["annotations"]["example.com/contact"] == "desk", name


def selected(selector: Object, labels: Object) -> bool:
    for wanted in selector.get("matchExpressions", ()):
        assert wanted["operator"] == "In"
        if labels.get(wanted["key"]) not in wanted["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def test_selectors_find_the_pods_of_one_component_only(rendered: Any) -> None:
    pods = dict(rendered.templates())
    for owner in rendered.of("Deployment", "StatefulSet"):
        name = f"{owner['kind']}/{owner['metadata']['name']}"
        found = [other for other, pod in pods.items() if selected(owner["spec"]["selector"], pod["metadata"]["labels"])]
        assert found == [name]
    for service in rendered.of("Service"):
        found = [
            pod
            for pod in pods.values()
            if selected({"matchLabels": service["spec"]["selector"]}, pod["metadata"]["labels"])
        ]
        assert len(found) == 1, service["metadata"]["name"]
        ports = {port["name"] for container in found[0]["spec"]["containers"] for port in container.get("ports", ())}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, service["metadata"]["name"]
    for budget in rendered.of("PodDisruptionBudget"):
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "what is broken must not keep a node"
        assert sum(selected(budget["spec"]["selector"], pod["metadata"]["labels"]) for pod in pods.values()) == 1


def test_scalers_scale_what_is_there_up_to_its_partitions_and_down_calmly(rendered: Any) -> None:
    deployments = {one["metadata"]["name"]: one for one in rendered.of("Deployment")}
    scalers = rendered.of("HorizontalPodAutoscaler", "ScaledObject")
    targets = [one["spec"]["scaleTargetRef"]["name"] for one in scalers]
    assert len(set(targets)) == len(targets), "two scalers must never fight over one Deployment"
    for scaler in scalers:
        spec = scaler["spec"]
        deployment = deployments[spec["scaleTargetRef"]["name"]]
        assert "replicas" not in deployment["spec"], "an upgrade would undo what the scaler did"
        most = spec.get("maxReplicas", spec.get("maxReplicaCount"))
        assert 1 <= spec.get("minReplicas", spec.get("minReplicaCount")) <= most <= 16
        advanced = spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {})
        behavior = spec.get("behavior") or advanced["behavior"]
        assert behavior["scaleDown"]["stabilizationWindowSeconds"] >= 300
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        assert "cpu" in container["resources"]["requests"], "a share of what is requested needs a request"
    for name, deployment in deployments.items():
        assert ("replicas" in deployment["spec"]) == (name not in targets)
    if rendered.case == "nothing scales":
        assert scalers == []


def test_keda_asks_the_engines_for_their_lag(render: Callable[[str], Any]) -> None:
    rendered = render("KEDA")
    services = {one["metadata"]["name"] for one in rendered.of("Service")}
    asked = [one for one in rendered.of("ScaledObject") if one["spec"]["triggers"][0]["type"] == "metrics-api"]
    assert len(asked) == 3
    for one in asked:
        url = re.fullmatch(r"http://([a-z-]+)\.desk\.svc:8080/lag", one["spec"]["triggers"][0]["metadata"]["url"])
        assert url is not None
        assert url[1] in services
        assert one["spec"]["fallback"]["replicas"] >= 1
    assert render("KEDA").of("HorizontalPodAutoscaler") == []
    for one in render("defaults").of("HorizontalPodAutoscaler"):
        let = one["metadata"]["annotations"]["validations.keda.sh/hpa-ownership"]
        assert let == "false", "KEDA would refuse its ScaledObject as long as this one is there"


def test_every_engine_is_deployed_and_runs_that_engine(render: Callable[[str], Any]) -> None:
    rendered = render("defaults")
    for engine in ENGINES:
        name = f"bot-botplatform-{engine.replace('_', '-')}"
        pod = rendered.named("Deployment", name)["spec"]["template"]["spec"]
        assert pod["containers"][0]["args"][:3] == ["run", "--engine", engine]


def test_further_objects_are_rendered(render: Callable[[str], Any]) -> None:
    rendered = render("everything on")
    assert rendered.named("ConfigMap", "more")["data"] == {"of": "bot"}
    assert rendered.named("ConfigMap", "bot-text")


def test_two_releases_in_one_namespace_do_not_collide(helm: Any) -> None:
    first, second = helm.render(), helm.render(release="other")

    def names(rendered: Any) -> set[tuple[str, str]]:
        return {(one["kind"], one["metadata"]["name"]) for one in rendered.objects}

    assert names(first) & names(second) == set()
    pods = [pod["metadata"]["labels"] for _, pod in second.templates()]
    for one in first.of("Deployment", "StatefulSet", "PodDisruptionBudget", "NetworkPolicy"):
        selector = one["spec"].get("selector", one["spec"].get("podSelector"))
        assert not any(selected(selector, labels) for labels in pods), one["metadata"]["name"]


@pytest.mark.parametrize(
    ("release", "values"),
    [
        ("a" * 53, {}),
        ("a" * 39 + "-" + "b" * 13, {"nameOverride": "c" * 60}),
        ("bot", {"fullnameOverride": "d" * 62}),
    ],
)
def test_long_names_fit(helm: Any, release: str, values: Object) -> None:
    rendered = helm.render({**values, "nats": {"replicas": 3}}, release)
    for one in rendered.objects:
        name = one["metadata"]["name"]
        assert len(name) <= 63, name
        assert DNS_LABEL.fullmatch(name), name
        for label in one["metadata"]["labels"].values():
            assert len(label) <= 63, label
    # what Kubernetes puts behind it has to fit into a label as well
    for one in rendered.of("StatefulSet"):
        assert len(one["metadata"]["name"]) <= 63 - len("-0123456789")


def test_lint_is_content(helm: Any) -> None:
    done = helm.run("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout
