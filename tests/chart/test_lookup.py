"""What the chart makes of what the cluster has already; the cluster is a few answers over HTTP."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Object = dict[str, Any]
CHART = Path(__file__).parents[2] / "charts" / "botplatform"

KINDS = {
    "v1": {"Secret": "secrets", "PersistentVolumeClaim": "persistentvolumeclaims"},
    "apps/v1": {"StatefulSet": "statefulsets"},
}


class Cluster(ThreadingHTTPServer):
    """Answers what Helm asks an API server for: its kinds, and objects of one namespace by name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.objects: dict[str, Object] = {}
        """By path below the namespace, such as `secrets/a`."""

    def answer(self, path: str) -> Object | None:
        if path == "/version":
            return {"major": "1", "minor": "31", "gitVersion": "v1.31.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            version = {"groupVersion": "apps/v1", "version": "v1"}
            group = {"name": "apps", "versions": [version], "preferredVersion": version}
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]}
        kinds = KINDS.get(path.removeprefix("/apis/").removeprefix("/api/"))
        if kinds is not None:
            made = [
                {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "list"]}
                for kind, name in kinds.items()
            ]
            return {"kind": "APIResourceList", "groupVersion": path.split("/", 2)[2], "resources": made}
        return self.objects.get(path.partition("/namespaces/desk/")[2])


class Answers(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Cluster)
        found = self.server.answer(self.path.partition("?")[0])
        missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
        body = json.dumps(missing if found is None else found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster without objects."""
    with Cluster() as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def asked(cluster: Cluster) -> tuple[str, ...]:
    """The options with which Helm asks this cluster."""
    return "--dry-run=server", "--kube-apiserver", f"http://127.0.0.1:{cluster.server_port}"


def refused(helm: Any, cluster: Cluster, values: Object) -> str:
    """Why an upgrade to these values is refused."""
    done = helm.run("template", "bot", str(CHART), "--namespace", "desk", *asked(cluster), values=values)
    assert done.returncode != 0, "these values were taken"
    return str(done.stderr)


def stateful(size: str, **spec: str) -> Object:
    claim = {"spec": {"resources": {"requests": {"storage": size}}, **spec}}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "spec": {"volumeClaimTemplates": [claim] if size else []}}


def test_passwords_are_kept_and_a_new_user_gets_one(helm: Any, cluster: Cluster) -> None:
    had = {name: base64.b64encode(f"p-of-{name}".encode()).decode() for name in ("tap", "route", "signals")}
    cluster.objects["secrets/bot-botplatform-nats-users"] = {"apiVersion": "v1", "kind": "Secret", "data": had}
    data = helm.render({}, "bot", *asked(cluster)).named("Secret", "bot-botplatform-nats-users")["data"]
    assert {name: data[name] for name in had} == had
    assert len(data) > 10
    assert all(len(base64.b64decode(value)) == 32 for name, value in data.items() if name not in had)


@pytest.mark.parametrize(
    ("there", "values", "says"),
    [
        ({"size": "8Gi"}, {"size": "16Gi"}, r"patch its claims"),
        ({"size": "8Gi", "storageClassName": "slow"}, {"storageClassName": "fast"}, r"of another class"),
        ({"size": ""}, {}, r"nats.persistence.enabled is true"),
        ({"size": "8Gi"}, {"enabled": False}, r"nats.persistence.enabled is false"),
    ],
)
def test_volumes_that_cannot_be_changed_are_refused_with_a_sentence(
    helm: Any, cluster: Cluster, there: dict[str, str], values: Object, says: str
) -> None:
    cluster.objects["statefulsets/bot-botplatform-nats"] = stateful(**there)
    assert says in refused(helm, cluster, {"nats": {"persistence": values}})


def test_volumes_that_stay_are_content(helm: Any, cluster: Cluster) -> None:
    cluster.objects["statefulsets/bot-botplatform-nats"] = stateful("8192Mi", storageClassName="the-default-one")
    assert helm.render({}, "bot", *asked(cluster)).of("StatefulSet")


def test_a_server_alone_does_not_become_a_cluster(helm: Any, cluster: Cluster) -> None:
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    cluster.objects["persistentvolumeclaims/data-bot-botplatform-nats-0"] = claim
    assert "are those of 1" in refused(helm, cluster, {"nats": {"replicas": 3}})


@pytest.mark.parametrize("data", [{}, {"url": ""}, {"uri": base64.b64encode(b"postgresql://u:p@h/d").decode()}])
def test_a_secret_without_the_address_of_the_database_is_refused_with_a_sentence(
    helm: Any, cluster: Cluster, data: dict[str, str]
) -> None:
    cluster.objects["secrets/store"] = {"apiVersion": "v1", "kind": "Secret", "data": data}
    said = refused(helm, cluster, {"database": {"existingSecret": "store"}})
    assert "the Secret store of database.existingSecret has no url, or an empty one: put postgresql://" in said


def test_a_secret_with_the_address_of_the_database_is_taken(helm: Any, cluster: Cluster) -> None:
    data = {"url": base64.b64encode(b"postgresql://u:p@h/d").decode()}
    cluster.objects["secrets/store"] = {"apiVersion": "v1", "kind": "Secret", "data": data}
    assert helm.render({"database": {"existingSecret": "store"}}, "bot", *asked(cluster)).of("Deployment")


def secret_of(data: dict[str, str]) -> Object:
    encoded = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "data": encoded}


ROTATED: dict[str, Object] = {
    "nats": {
        "auth": {"existingSecret": "users"},
        "tls": {"existingSecret": "certificates"},
    },
    "engines": {"execution": {"existingSecretSettings": "keys"}},
}
USERS = ("execution", "signals", "route", "setup", "storage")


def digests(helm: Any, cluster: Cluster, values: Object) -> dict[str, str]:
    """The digest of the secrets in each pod template, where there is one."""
    forgetful = type(helm)(helm.binary)
    objects = forgetful.render(values, "bot", *asked(cluster))
    pods = {each["metadata"]["name"]: each["spec"]["template"] for each in objects.of("Deployment", "StatefulSet")}
    found = {name: pod["metadata"].get("annotations", {}).get("checksum/secrets", "") for name, pod in pods.items()}
    return {name.removeprefix("bot-botplatform-"): digest for name, digest in found.items()}


@pytest.mark.parametrize(
    ("name", "key", "rolled"),
    [
        ("users", "signals", {"signals", "nats"}),
        ("users", "route", {"nats"}),
        ("keys", "BOTPLATFORM_EXCHANGE__SECRETS__api_key", {"execution"}),
        ("certificates", "tls.key", set()),
    ],
)
def test_another_secret_of_ones_own_rolls_the_pods_that_read_it_and_no_others(
    helm: Any, cluster: Cluster, name: str, key: str, rolled: set[str]
) -> None:
    held = {
        "users": {user: f"p-of-{user}" for user in USERS},
        "keys": {"BOTPLATFORM_EXCHANGE__SECRETS__api_key": "old"},
        "certificates": {"ca.crt": "authority", "tls.crt": "certificate", "tls.key": "old"},
    }
    cluster.objects |= {f"secrets/{each}": secret_of(data) for each, data in held.items()}
    before = digests(helm, cluster, ROTATED)
    held[name][key] = "new"
    cluster.objects[f"secrets/{name}"] = secret_of(held[name])
    after = digests(helm, cluster, ROTATED)
    assert {each for each in before if before[each] != after[each]} == rolled


def test_without_a_cluster_there_is_no_digest_of_secrets(helm: Any, cluster: Cluster) -> None:
    assert not any(digests(helm, cluster, ROTATED).values())
    assert not any(digests(helm, cluster, {}).values())
