"""Every value does something, and a wrong one is refused with a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

Object = dict[str, Any]
CHART = Path(__file__).parents[2] / "charts" / "botplatform"
VALUES: Object = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: Object = json.loads((CHART / "values.schema.json").read_text())
OWN = [name for name in VALUES if name not in ("config", "engines", "venue", "janitor")]
EITHER = {"digest", "existingSecret", "existingClaim", "existingSecretSettings", "endpoint", "fullnameOverride", "name"}
"""Keys that hide others: they are given in a second round."""
SWITCHES = {
    "defaults.enabled", "defaults.persistence.enabled", "autoscaling.kind", "setup.enabled", "nats.enabled",
    "nats.persistence.enabled", "nats.reloader.enabled", "jaeger.enabled", "networkPolicy.enabled",
    "podMonitor.enabled", "test.enabled", "defaults.podDisruptionBudget.enabled", "defaults.serviceAccount.create",
    "nats.replicas", "image.pullPolicy", "nats.image.pullPolicy", "jaeger.image.pullPolicy", "defaults.strategy.type",
    "defaults.persistence.keep", "defaults.persistence.accessModes", "nats.syncInterval",
    "nats.podDisruptionBudget.enabled", "nats.serviceAccount.create", "nats.external.auth",
    "nats.external.tlsClientCertificate", "networkPolicy.internetFor", "networkPolicy.internetPorts",
    "networkPolicy.egressFor", "metrics.rules.enabled", "metrics.rules.without", "metrics.dashboards.enabled",
}  # fmt: skip
"""What is one of a few things: each has its assertion below, or in the test of what it is about."""


def leaves(node: Object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Object]]:
    node = SCHEMA["$defs"][node["$ref"].removeprefix("#/$defs/")] if "$ref" in node else node
    if "anyOf" in node:
        node = next(
            (SCHEMA["$defs"][each["$ref"].removeprefix("#/$defs/")] for each in node["anyOf"] if "$ref" in each),
            node,
        )
    if "properties" not in node:
        yield path, node
        return
    for name, below in node["properties"].items():
        yield from leaves(below, (*path, name))


def sentinel(node: Object, number: int) -> Any:
    """A value that the schema allows and nothing else has."""
    types = node.get("type", "object")
    kinds = types if isinstance(types, list) else [types]
    if "array" in kinds:
        return [{"name": f"s{number}"}]
    if "object" in kinds:
        if "patternProperties" in node:
            return {f"a.s{number}": f"s{number}"}
        named = node.get("propertyNames", {}).get("enum")
        return {"memory": f"{number}Mi"} if named else {f"s{number}": f"s{number}"}
    if "string" in kinds:
        pattern = node.get("pattern", "")
        tries = ("s{}", "{}Mi", "{}MiB", "{}Gi", "{}s", "sha256:{:064d}", "nats://s{}:1", "http://s{}:1", "{}m", "{}%")
        return next(text.format(number) for text in tries if re.search(pattern, text.format(number)))
    return int(node.get("minimum", 0)) + number % 60 if "maximum" in node else number


def given(path: tuple[str, ...], value: Any, into: Object) -> None:
    for name in path[:-1]:
        into = into.setdefault(name, {})
    into[path[-1]] = value


def merged(*all_values: Object) -> Object:
    result: Object = {}
    for values in all_values:
        for key, value in values.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if both else value
    return result


KEYS = {
    path: node
    for name in OWN
    for path, node in leaves(SCHEMA["properties"][name], (name,))
    if ".".join(path) not in SWITCHES and path[-1] != "initialDelaySeconds"
}
SENTINELS = {path: sentinel(node, 4001 + 13 * at) for at, (path, node) in enumerate(KEYS.items())}
ROUNDS: dict[str, tuple[Object, bool]] = {
    "plain": (
        {
            "podMonitor": {"enabled": True},
            "metrics": {"rules": {"enabled": True}, "dashboards": {"enabled": True}},
            "engines": {"portfolio": {"persistence": {"enabled": True}}},
        },
        False,
    ),
    "keda": ({"autoscaling": {"kind": "keda"}, "podMonitor": {"enabled": True}}, False),
    "instead": (
        {"defaults": {"serviceAccount": {"create": False}}, "nats": {"serviceAccount": {"create": False}}},
        True,
    ),
    "external": (
        {
            "defaults": {"serviceAccount": {"create": False}},
            "nats": {"enabled": False, "external": {"auth": "nkey"}},
            "jaeger": {"enabled": False},
        },
        True,
    ),
}


def token(value: Any) -> str:
    """What to look for in what is rendered."""
    if isinstance(value, dict):
        return str(next(iter(value.values())))
    return str(value[0]["name"]) if isinstance(value, list) else str(value)


@pytest.fixture(scope="module")
def texts(helm: Any) -> dict[str, str]:
    """What each round makes of the sentinels."""
    found = {}
    for name, (base, instead) in ROUNDS.items():
        values: Object = {}
        for path, value in SENTINELS.items():
            either = path[-1] in EITHER and path[:2] != ("networkPolicy", "kedaNamespace")
            hidden = either or path[0] == "database"  # with one, storage has no volume
            elsewhere = path[:2] == ("nats", "external") and name != "external"
            if not elsewhere and hidden in (instead, False):
                given(path, value, values)
        values["extraObjects"] = [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": token(SENTINELS["extraObjects",])}}
        ]
        values["defaults"]["replicas"] = 1  # what has a volume of its own has one replica
        values["nats"]["persistence"]["size"] = "9Gi"  # more than the server may store
        found[name] = helm.text(merged(values, base))
    return found


def test_every_value_is_used(texts: dict[str, str]) -> None:
    everything = "\n".join(texts.values())
    unused = [
        ".".join(path)
        for path, value in SENTINELS.items()
        if path not in (("defaults", "replicas"), ("nats", "persistence", "size"))
        and not re.search(rf"(?<!\d){re.escape(token(value))}(?!\d)", everything)
    ]
    assert unused == []
    assert len(SENTINELS) > 100


def test_what_is_switched_off_is_away(render: Any) -> None:
    off, on = render("everything off"), render("defaults")
    gone = {"Job", "Pod", "NetworkPolicy", "PodDisruptionBudget", "ServiceAccount", "HorizontalPodAutoscaler"}
    gone |= {"StatefulSet", "PersistentVolumeClaim", "PodMonitor", "PrometheusRule"}
    assert {one["kind"] for one in off.objects} & gone == set()
    assert {one["kind"] for one in on.objects} >= gone - {"PodMonitor", "PrometheusRule"}
    assert {one["kind"] for one in render("everything on").objects} >= {"PodMonitor", "PrometheusRule"}

    def components(rendered: Any) -> set[str]:
        return {one["metadata"]["labels"]["app.kubernetes.io/component"] for one in rendered.of("Deployment")}

    assert components(on) - components(off) == {"venue", "janitor", "jaeger"}
    assert components(on) - components(render("some engines off")) == {"market-data", "notifications"}
    assert len(on.of("StatefulSet")[0]["spec"]["template"]["spec"]["containers"]) == 2
    assert len(render("nothing kept").of("StatefulSet")[0]["spec"]["template"]["spec"]["containers"]) == 1
    assert "volumeClaimTemplates" not in render("nothing kept").of("StatefulSet")[0]["spec"]


def test_what_is_chosen_is_taken(helm: Any) -> None:
    always = {"pullPolicy": "Always"}
    rendered = helm.render(
        {
            "image": always,
            "jaeger": {"image": always},
            "nats": {
                "image": always,
                "syncInterval": "always",
                "podDisruptionBudget": {"enabled": False},
                "serviceAccount": {"create": False},
            },
            "defaults": {"strategy": {"type": "Recreate", "rollingUpdate": None}},
            "engines": {"storage": {"persistence": {"keep": False, "accessModes": ["ReadWriteOncePod"]}}},
        }
    )
    assert {container["imagePullPolicy"] for _, container in rendered.containers()} == {"Always"}
    assert {one["spec"]["strategy"]["type"] for one in rendered.of("Deployment")} == {"Recreate"}
    claims = {one["metadata"]["name"].rsplit("-", 1)[1]: one for one in rendered.of("PersistentVolumeClaim")}
    assert claims["storage"]["spec"]["accessModes"] == ["ReadWriteOncePod"]
    kept = {name: "helm.sh/resource-policy" in one["metadata"].get("annotations", {}) for name, one in claims.items()}
    assert kept == {"storage": False, "venue": True}
    assert "bot-botplatform-nats" not in {
        one["metadata"]["name"] for one in rendered.of("PodDisruptionBudget", "ServiceAccount")
    }
    config = rendered.named("ConfigMap", "bot-botplatform-nats")["data"]["nats.conf"]
    assert re.search(r"sync_interval: \"?always", config)


def test_an_engine_has_its_own_values_before_those_of_all(helm: Any) -> None:
    values = {
        "defaults": {"nodeSelector": {"disk": "slow"}, "resources": {"requests": {"cpu": "11m"}}},
        "engines": {"signals": {"nodeSelector": {"disk": "fast"}, "resources": {"requests": {"cpu": "22m"}}}},
        "venue": {"resources": {"limits": {"memory": "333Mi"}}},
    }
    rendered = helm.render(values)

    def pod(component: str) -> Object:
        found: Object = rendered.named("Deployment", f"bot-botplatform-{component}")["spec"]["template"]["spec"]
        return found

    assert pod("signals")["nodeSelector"] == {"disk": "fast"}
    assert pod("strategy")["nodeSelector"] == {"disk": "slow"}
    assert pod("signals")["containers"][0]["resources"]["requests"]["cpu"] == "22m"
    assert pod("strategy")["containers"][0]["resources"]["requests"]["cpu"] != "22m"
    assert pod("venue")["containers"][0]["resources"]["limits"]["memory"] == "333Mi"


@pytest.mark.parametrize("name", ["setup", "test"])
def test_what_runs_for_a_while_has_the_variables_and_volumes_of_all_unless_it_has_its_own(helm: Any, name: str) -> None:
    extras: dict[str, list[Object]] = {
        "extraEnv": [{"name": "PGSSLROOTCERT", "value": "/authority/ca.crt"}],
        "extraEnvFrom": [{"secretRef": {"name": "more"}}],
        "extraVolumes": [{"name": "authority", "secret": {"secretName": "authority"}}],
        "extraVolumeMounts": [{"name": "authority", "mountPath": "/authority", "readOnly": True}],
    }

    def those_of_all(own: Object) -> list[bool]:
        rendered = helm.render({"defaults": extras, name: own})
        (made,) = rendered.of("Job" if name == "setup" else "Pod")
        pod = made["spec"]["template"]["spec"] if name == "setup" else made["spec"]
        (container,) = pod["containers"]
        found = container["env"], container.get("envFrom", []), pod["volumes"], container["volumeMounts"]
        return [given in each for each, (given,) in zip(found, extras.values(), strict=True)]

    assert those_of_all({}) == [True] * 4
    assert those_of_all({each: [] for each in extras}) == [False] * 4
    assert those_of_all({"extraEnv": [{"name": "MINE", "value": "1"}]}) == [False, True, True, True]


def test_a_feed_that_is_not_divided_may_have_a_second_process_that_stands_by(helm: Any) -> None:
    feed = {"config": {"feed": {"kind": "file", "path": "/feeds/a.csv"}}}
    alone = helm.render(feed).named("HorizontalPodAutoscaler", "bot-botplatform-market-data")["spec"]
    assert (alone["minReplicas"], alone["maxReplicas"]) == (1, 1)
    two = merged(feed, {"engines": {"market-data": {"autoscaling": {"minReplicas": 2}}}})
    both = helm.render(two).named("HorizontalPodAutoscaler", "bot-botplatform-market-data")["spec"]
    assert (both["minReplicas"], both["maxReplicas"]) == (2, 2)


def test_what_is_taken_out_is_empty(helm: Any) -> None:
    nothing = dict.fromkeys(("podAnnotations", "annotations", "podLabels", "tolerations", "nodeSelector", "affinity"))
    rendered = helm.render(
        {"commonLabels": None, "commonAnnotations": None, "defaults": nothing, "nats": nothing, "test": nothing}
    )
    assert len(rendered.of("Deployment")) == 11


WRONG: list[tuple[Object, str]] = [
    ({"config": {"feed": {"rate": -1}}}, "at '/config/feed/rate': exclusiveMinimum: got -1, want 0"),
    ({"config": {"feed": {"rat": 1}}}, "at '/config/feed': additional properties 'rat' not allowed"),
    ({"config": {"symbols": ["B.C"]}}, "at '/config/symbols/0': 'B.C' does not match pattern"),
    ({"config": {"risk": {"max_order_notional": "much"}}}, "at '/config/risk/max_order_notional': 'much'"),
    ({"config": {"nats": {"password": "x"}}}, "at '/config/nats': additional properties 'password'"),
    ({"config": {"exchange": {"secrets": {"k": "x"}}}}, "at '/config/exchange': additional properties 'secrets'"),
    ({"config": {"notifications": {"channels": {"a": "b"}}}}, "additional properties 'channels' not allowed"),
    ({"engines": {"signal": {}}}, "at '/engines': additional properties 'signal' not allowed"),
    ({"engines": {"signals": {"replica": 2}}}, "at '/engines/signals': additional properties 'replica'"),
    ({"defaults": {"resources": {"limits": {"memory": "lots"}}}}, "'/defaults/resources/limits/memory': 'lots'"),
    ({"nats": {"replicas": 2}}, "at '/nats/replicas': value must be one of 1, 3"),
    ({"nats": {"external": {"url": "localhost"}}}, "at '/nats/external/url': 'localhost' does not match"),
    ({"jaeger": {"enabled": "perhaps"}}, "at '/jaeger/enabled': got string, want boolean"),
    ({"image": {"digest": "abc"}}, "at '/image/digest': 'abc' does not match pattern"),
    ({"autoscaling": {"kind": "vpa"}}, "at '/autoscaling/kind': value must be one of 'hpa', 'keda', 'none'"),
    ({"jeager": {}}, "at '': additional properties 'jeager' not allowed"),
]  # fmt: skip


def test_each_wrong_value_is_refused_with_its_place(helm: Any) -> None:
    said = helm.refused(merged(*(values for values, _ in WRONG)))
    assert [says for _, says in WRONG if says not in said] == []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"nats": {"enabled": False}}, r"nats\.external\.url"),
        ({"venue": {"enabled": False}}, r"venue\.enabled is false"),
        ({"nats": {"enabled": False, "external": {"url": "nats://a:4222", "auth": "nkey"}}}, r"existingSecret"),
        ({"engines": {"storage": {"replicas": 2}}}, r"engines\.storage"),
        ({"engines": {"storage": {"persistence": {"size": "2Gi"}}}}, r"persistence\.size is 2Gi, .* 3221225472 bytes"),
        ({"config": {"storage": {"max_bytes": 5_000_000_000}}}, r"persistence\.size is 4Gi, .* 5000000000 bytes"),
        ({"config": {"tracing": {"endpoint": "http://a:4318"}}}, r"config\.tracing\.endpoint"),
        ({"config": {"tracing": {"protocol": "grpc"}}}, r"Jaeger is reached over HTTP"),
        ({"nats": {"persistence": {"size": "6Gi"}}}, r"nats\.maxFileStore is 7Gi, but nats\.persistence\.size is 6Gi"),
        ({"commonLabels": {"app.kubernetes.io/version": "1"}}, r"commonLabels has app\.kubernetes\.io/version"),
        ({"venue": {"podLabels": {"app.kubernetes.io/component": "a"}}}, r"venue\.podLabels has app\.kubernetes\.io/c"),
        ({"engines": {"signals": {"podLabels": {"app.kubernetes.io/name": "a"}}}}, r"signals\.podLabels has"),
        ({"engines": {"storage": {"waitSeconds": 300}}}, r"storage\.startupProbe gives up after 300 s, .* 300 s"),
        ({"engines": {"market-data": {"autoscaling": {"minReplicas": 4}}}}, r"market-data has more .* 3 shares"),
        ({"tracing": {"endpoint": "http://me:secret@a:4318"}}, r"tracing\.endpoint holds a user or password"),
        ({"nats": {"enabled": False, "external": {"url": "nats://a:1,tls://me@b:2"}}}, r"external\.url holds a user"),
        ({"config": {"exchange": {"kind": "a.b:C"}}}, r"exchange\.kind is a\.b:C, but config\.feed\.kind is synthetic"),
        ({"nats": {"maxFileStore": "9G"}}, r"nats\.maxFileStore is 9G, but nats\.persistence\.size is 8Gi"),
        ({"venue": {"serviceAccount": {"name": "mine"}}}, r"venue\.serviceAccount\.name is mine"),
    ],
)
def test_values_that_contradict_each_other_are_refused_with_a_sentence(helm: Any, values: Object, says: str) -> None:
    said = helm.refused(values)
    assert re.search(says, said), said
    assert len(said.split(": ")[-1].split()) >= 5, said
