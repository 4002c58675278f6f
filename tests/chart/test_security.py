"""What a strict cluster asks of every pod, and what each container says about itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from botplatform.bootstrap import ENGINES
from botplatform.settings import load_settings

K8S = Path(__file__).parents[2] / "k8s"
DRAIN_S = 25
"""Seconds in which a process that is stopped hands over what it has."""
VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "secret", "projected", "downwardAPI", "csi", "ephemeral"}


def test_every_pod_meets_the_restricted_standard(rendered: Any) -> None:
    for name, pod in rendered.templates():
        spec = pod["spec"]
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] > 0, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        for volume in spec.get("volumes", ()):
            assert volume.keys() - {"name"} <= VOLUMES, (name, volume)
    for place, container in rendered.containers():
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False, place
        assert security["readOnlyRootFilesystem"] is True, place
        assert security["capabilities"] == {"drop": ["ALL"]}, place
        assert not {"privileged", "procMount", "runAsUser"} & security.keys(), place
        assert not any("hostPort" in port for port in container.get("ports", ())), place


def test_no_pod_has_a_token_and_each_knows_its_account(rendered: Any) -> None:
    accounts = {one["metadata"]["name"] for one in rendered.of("ServiceAccount")}
    for name, pod in rendered.templates():
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        assert pod["spec"]["enableServiceLinks"] is False, name
        assert pod["spec"]["serviceAccountName"] in accounts | {"default"}, name
    assert all(one["automountServiceAccountToken"] is False for one in rendered.of("ServiceAccount"))


def test_every_container_asks_for_what_it_needs_and_is_bounded_in_memory(rendered: Any) -> None:
    for place, container in rendered.containers():
        resources = container["resources"]
        assert {"cpu", "memory"} <= resources["requests"].keys(), place
        assert "memory" in resources["limits"], place
        assert "cpu" not in resources["limits"], f"{place}: throttling eats leases"
        assert amount(resources["requests"]["memory"]) <= amount(resources["limits"]["memory"]), place


def amount(quantity: str) -> float:
    found = re.fullmatch(r"([0-9.]+)(m|Mi|Gi|Ki)?", str(quantity))
    assert found is not None, quantity
    return float(found[1]) * {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, None: 1}[found[2]]


@pytest.mark.parametrize("limit", ["1Gi", "1.5Gi", "512Mi", 2147483648])
def test_servers_collect_harder_before_they_reach_their_limit(helm: Any, limit: str | int) -> None:
    resources = {"limits": {"memory": limit}}
    rendered = helm.render({"nats": {"resources": resources}, "jaeger": {"resources": resources}})
    found = {
        container["name"]: amount(variable["value"].removesuffix("B")) / amount(str(limit))
        for _, container in rendered.containers()
        for variable in container.get("env", ())
        if variable["name"] == "GOMEMLIMIT"
    }
    assert found.keys() == {"nats", "jaeger"}
    assert all(0.79 < share <= 0.8 for share in found.values()), found


def test_what_keeps_data_without_a_volume_has_room_for_it(render: Callable[[str], Any]) -> None:
    rendered = render("nothing kept")
    for component, size in (("storage", "4Gi"), ("venue", "1Gi"), ("signals", "64Mi")):
        spec = rendered.named("Deployment", f"bot-botplatform-{component}")["spec"]["template"]["spec"]
        data = next(one for one in spec["volumes"] if one["name"] == "data")
        assert data["emptyDir"] == {"sizeLimit": size}, component


def test_the_defaults_fit_a_laptop_cluster(render: Callable[[str], Any]) -> None:
    requests = [container["resources"]["requests"] for _, container in render("defaults").containers()]
    assert sum(amount(one["cpu"]) for one in requests) <= 2
    assert sum(amount(one["memory"]) for one in requests) <= 2.5 * 2**30


def test_whatever_runs_all_the_time_has_three_probes(rendered: Any) -> None:
    for owner in rendered.of("Deployment", "StatefulSet"):
        spec = owner["spec"]["template"]["spec"]
        main = spec["containers"][0]
        ports = {port["name"] for port in main["ports"]}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert main[kind]["httpGet"]["port"] in ports, (owner["metadata"]["name"], kind)
        start = main["startupProbe"]
        assert start["periodSeconds"] * start["failureThreshold"] >= 100, owner["metadata"]["name"]


def test_each_probe_of_an_engine_asks_what_it_means(render: Callable[[str], Any]) -> None:
    rendered = render("defaults")
    for engine in ENGINES:
        owner = rendered.named("Deployment", f"bot-botplatform-{engine.replace('_', '-')}")
        container = owner["spec"]["template"]["spec"]["containers"][0]
        asked = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
        assert asked == {"startup": "/startupz", "readiness": "/readyz", "liveness": "/livez"}


def test_nobody_is_killed_while_draining_and_nothing_is_missing_while_rolling(rendered: Any) -> None:
    for owner in rendered.of("Deployment"):
        spec = owner["spec"]
        name = owner["metadata"]["name"]
        if name.endswith("-jaeger"):
            continue
        assert spec["template"]["spec"]["terminationGracePeriodSeconds"] > DRAIN_S, name
        volumes = spec["template"]["spec"].get("volumes", ())
        if name.endswith("-venue"):
            assert spec["strategy"]["type"] == "Recreate", "two venues would answer the same orders"
        if any("persistentVolumeClaim" in volume for volume in volumes):
            assert spec["strategy"]["type"] == "Recreate", f"{name}: two pods cannot share the volume"
        elif spec["strategy"]["type"] != "Recreate":
            assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0, name


def test_what_has_no_volume_leaves_a_lost_node_soon(helm: Any) -> None:
    mine = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    values = {
        "defaults": {"tolerations": [{"key": "spot", "operator": "Exists"}]},
        "engines": {
            "signals": {"nodeLostSeconds": 7},
            "strategy": {"tolerations": [mine]},
            "portfolio": {"tolerations": [{"operator": "Exists"}]},
        },
    }
    found = {
        pod["metadata"]["labels"]["app.kubernetes.io/component"]: [
            (one.get("key", ""), one.get("tolerationSeconds")) for one in pod["spec"].get("tolerations", ())
        ]
        for _, pod in helm.render(values).templates()
    }
    spot, taints = ("spot", None), ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    assert found["execution"] == [spot, *((taint, 30) for taint in taints)]
    assert found["signals"] == [spot, *((taint, 7) for taint in taints)]
    assert found["strategy"] == [(taints[1], None), (taints[0], 30)]
    assert found["portfolio"] == [("", None)]
    assert found["storage"] == found["venue"] == [spot], "their volumes stay behind"
    assert found["nats"] == found["setup"] == []


def test_jaeger_keeps_no_more_traces_than_its_memory_holds(helm: Any) -> None:
    production = yaml.safe_load((K8S / "values" / "production.yaml").read_text())
    for values in ({}, {"jaeger": production["jaeger"]}):
        container = helm.render(values).named("Deployment", "bot-botplatform-jaeger")["spec"]["template"]["spec"][
            "containers"
        ][0]
        traces = int(container["args"][0].removeprefix("--memory.max-traces="))
        assert traces * 350_000 <= 0.7 * amount(container["resources"]["limits"]["memory"])


def test_nats_keeps_what_it_was_given(render: Callable[[str], Any]) -> None:
    alone = render("defaults").of("StatefulSet")[0]["spec"]
    three = render("three NATS servers").of("StatefulSet")[0]["spec"]
    assert (alone["replicas"], three["replicas"]) == (1, 3)
    assert three["template"]["spec"]["terminationGracePeriodSeconds"] >= 60
    assert "ldm" in str(three["template"]["spec"]["containers"][0]["lifecycle"]["preStop"])
    for spec in (alone, three):
        assert spec["podManagementPolicy"] == "Parallel"
        assert [claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]] == ["data"]
        paths = [
            spec["template"]["spec"]["containers"][0][f"{kind}Probe"]["httpGet"]["path"]
            for kind in ("startup", "readiness", "liveness")
        ]
        assert paths == ["/healthz", "/healthz?js-server-only=true", "/healthz?js-enabled-only=true"]


@pytest.mark.parametrize("case", ["defaults", "everything on"])
def test_secrets_are_in_secrets_only(render: Callable[[str], Any], case: str) -> None:
    rendered = render(case)
    for place, container in rendered.containers():
        for variable in container.get("env", ()):
            if re.search(r"PASSWORD|SECRET|KEY|TOKEN", variable["name"]) and "FILE" not in variable["name"]:
                assert "secretKeyRef" in variable["valueFrom"], (place, variable["name"])
    words = [value for one in rendered.of("Secret") for value in (one.get("stringData") or {}).values()]
    maps = "".join(str(one.get("data")) for one in rendered.of("ConfigMap"))
    assert all(len(word) < 3 or word not in maps for word in words)


def test_secret_settings_reach_their_engine_only(render: Callable[[str], Any]) -> None:
    rendered = render("everything on")
    sources = {
        place.split("/")[1]: [source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source]
        for place, container in rendered.containers()
        if container.get("envFrom")
    }
    given = {name.removeprefix("bot-botplatform-"): found for name, found in sources.items() if found}
    assert list(given) == ["execution", "notifications"]
    assert given["notifications"] == ["channels"]
    secret = rendered.named("Secret", given["execution"][0])
    settings = load_settings(environ=secret["stringData"])
    assert {name: value.get_secret_value() for name, value in settings.exchange.secrets.items()} == {
        "api_key": "k",
        "secret": "s",
    }
