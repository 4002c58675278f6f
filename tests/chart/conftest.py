"""Rendering the chart with the real Helm, once for each set of values."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "botplatform"
HOW = "helm is not installed: `go install helm.sh/helm/v3/cmd/helm@v3.22.0`, and put ~/go/bin into the PATH"

Object = dict[str, Any]

THREE_NATS: Object = {"nats": {"replicas": 3}}
EXTERNAL: Object = {
    "nats": {
        "enabled": False,
        "external": {"url": "nats://a.example:4222,tls://b.example:5222", "auth": "password", "existingSecret": "nats"},
    }
}
KEDA: Object = {"autoscaling": {"kind": "keda"}}
UNSCALED: Object = {"autoscaling": {"kind": "none"}}
OFF: Object = {
    "venue": {"enabled": False},
    "janitor": {"enabled": False},
    "setup": {"enabled": False},
    "test": {"enabled": False},
    "jaeger": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "autoscaling": {"kind": "none"},
    "config": {"exchange": {"kind": "paper"}},
    "defaults": {"podDisruptionBudget": {"enabled": False}, "serviceAccount": {"create": False}},
    "engines": {"execution": {"autoscaling": {"enabled": False}}, "storage": {"persistence": {"enabled": False}}},
    **EXTERNAL,
}
ON: Object = {
    "commonLabels": {"team": "trading"},
    "commonAnnotations": {"example.com/contact": "desk"},
    "image": {"digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "defaults": {
        "podLabels": {"tier": "engine"},
        "podAnnotations": {"example.com/pod": "yes"},
        "annotations": {"example.com/deployment": "yes"},
        "priorityClassName": "high",
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "trading", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "extraEnv": [{"name": "BOTPLATFORM_LOG__LEVEL", "value": "debug"}],
        "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "serviceAccount": {"annotations": {"example.com/role": "engine"}},
    },
    "engines": {
        "execution": {"secretSettings": {"exchange.secrets.api_key": "k", "exchange.secrets.secret": "s"}},
        "notifications": {"existingSecretSettings": "channels"},
        "storage": {"persistence": {"storageClassName": "fast", "size": "20Gi"}},
    },
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "metrics": {
        "rules": {
            "enabled": True,
            "labels": {"release": "prometheus"},
            "alertLabels": {"team": "desk"},
            "without": ["BotplatformSpansLost"],
            "extra": [{"alert": "Mine", "expr": "vector(1)", "for": "1m"}, {"record": "mine", "expr": "vector(1)"}],
        },
        "dashboards": {
            "enabled": True,
            "annotations": {"grafana_folder": "Trading"},
            "datasource": {"url": "http://prometheus.monitoring:9090"},
        },
    },
    "networkPolicy": {
        "internetFor": ["execution", "notifications"],
        "internetPorts": [443, 9443],
        "egressFor": {"storage": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 5432}]}]},
        "natsFrom": [{"namespaceSelector": {"matchLabels": {"team": "desk"}}}],
        "metricsFrom": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}],
    },
    "nats": {
        "replicas": 3,
        "tls": {"existingSecret": "nats-tls"},
        "auth": {"existingSecret": "nats-users"},
        "extraConfig": "max_connections: 500",
        "extraEnv": [{"name": "MORE", "value": "1"}],
        "persistence": {"storageClassName": "fast"},
    },
    "tracing": {"endpoint": "https://collector.example/otlp"},
    "extraObjects": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "more"}, "data": {"of": "{{ .Release.Name }}"}},
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-text'}",
    ],
}
CASES: dict[str, Object] = {
    "defaults": {},
    "three NATS servers": THREE_NATS,
    "external NATS": EXTERNAL,
    "external NATS with credentials": {
        "nats": {
            "enabled": False,
            "external": {"url": "tls://a:4222", "auth": "credentials", "existingSecret": "c", "tlsSecret": "t"},
        }
    },
    "external NATS with nkeys": {
        "nats": {"enabled": False, "external": {"url": "nats://a", "auth": "nkey", "existingSecret": "k"}}
    },
    "external NATS, open": {"nats": {"enabled": False, "external": {"url": "nats://a:4222"}}},
    "KEDA": KEDA,
    "nothing scales": UNSCALED,
    "nothing kept": {
        "nats": {"persistence": {"enabled": False}, "reloader": {"enabled": False}},
        "venue": {"persistence": {"enabled": False}},
        "engines": {"storage": {"persistence": {"enabled": False}}},
    },
    "database": {
        "database": {
            "existingSecret": "store",
            "key": "address",
            "tlsSecret": "authority",
            "port": 6432,
            "to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}],
        },
        "engines": {"storage": {"replicas": 2}},
    },
    "some engines off": {"engines": {"notifications": {"enabled": False}, "market-data": {"enabled": False}}},
    "everything off": OFF,
    "everything on": ON,
}


class Rendered(NamedTuple):
    """What the chart makes of values."""

    case: str
    release: str
    objects: tuple[Object, ...]

    def of(self, *kinds: str) -> list[Object]:
        """Return the objects of these kinds."""
        return [each for each in self.objects if each["kind"] in kinds]

    def named(self, kind: str, name: str) -> Object:
        """Return one object."""
        return next(each for each in self.of(kind) if each["metadata"]["name"] == name)

    def templates(self) -> Iterator[tuple[str, Object]]:
        """Yield every pod: its owner's name, and its metadata and spec."""
        for each in self.objects:
            name = f"{each['kind']}/{each['metadata']['name']}"
            if each["kind"] == "Pod":
                yield name, each
            elif each["kind"] in ("Deployment", "StatefulSet", "Job"):
                yield name, each["spec"]["template"]

    def containers(self) -> Iterator[tuple[str, Object]]:
        """Yield every container: its place, and itself."""
        for name, pod in self.templates():
            for container in [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]:
                yield f"{name}/{container['name']}", container


class Helm:
    """Runs Helm, and remembers what it said."""

    def __init__(self, binary: str) -> None:
        self.binary = binary
        self._known: dict[str, subprocess.CompletedProcess[str]] = {}

    def run(self, *arguments: str, values: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command with these values."""
        text = json.dumps(values or {})
        key = json.dumps([arguments, text])
        if key not in self._known:
            command = [self.binary, *arguments, "--values", "-"]
            self._known[key] = subprocess.run(
                command, input=text, capture_output=True, text=True, check=False, timeout=60
            )
        return self._known[key]

    def text(
        self, values: Mapping[str, Any] | None = None, release: str = "bot", *more: str, chart: Path = CHART
    ) -> str:
        """Return what `helm template` prints; fail with what it said."""
        done = self.run("template", release, str(chart), "--namespace", "desk", *more, values=values)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def render(
        self, values: Mapping[str, Any] | None = None, release: str = "bot", *more: str, case: str = ""
    ) -> Rendered:
        """Return the objects that `helm template` makes."""
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        found = yaml.load_all(self.text(values, release, *more), Loader=loader)
        return Rendered(case, release, tuple(each for each in found if each))

    def refused(self, values: Mapping[str, Any]) -> str:
        """Return why values are refused."""
        done = self.run("template", "bot", str(CHART), values=values)
        assert done.returncode != 0, "these values were taken"
        return done.stderr


@pytest.fixture(scope="session")
def helm() -> Helm:
    found = shutil.which("helm", path=os.pathsep.join([os.environ.get("PATH", ""), str(Path.home() / "go" / "bin")]))
    if found is None:
        pytest.skip(HOW)
    return Helm(found)


@pytest.fixture(scope="session")
def render(helm: Helm) -> Callable[[str], Rendered]:
    """Return what the chart makes of one of the cases."""
    known: dict[str, Rendered] = {}

    def rendered(case: str) -> Rendered:
        if case not in known:
            known[case] = helm.render(CASES[case], case=case)
        return known[case]

    return rendered


@pytest.fixture(scope="session")
def every(render: Callable[[str], Rendered]) -> list[Rendered]:
    """Return all cases, rendered."""
    return [render(case) for case in CASES]


@pytest.fixture(params=CASES)
def rendered(request: pytest.FixtureRequest, render: Callable[[str], Rendered]) -> Rendered:
    """Return each case in turn."""
    return render(request.param)
