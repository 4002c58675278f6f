"""A NATS server that is none of the chart's: in a namespace of its own, with TLS, verifying its clients."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from certificates import secret, secrets
from kube import Release, wait_for

from botplatform.core.seam import random_id

NAMESPACE = "nats-elsewhere"
NAME = "nats"
USERS = "nats-elsewhere-users"
CERTIFICATES = "nats-elsewhere-client"
HOST = f"{NAME}.{NAMESPACE}.svc"
IMAGE = "nats:2.15.1-alpine"
CONFIG = """
server_name: elsewhere
http: "0.0.0.0:8222"
max_payload: 8MB
jetstream { store_dir: "/data", max_file_store: 5G }
tls {
  cert_file: "/etc/nats-tls/tls.crt", key_file: "/etc/nats-tls/tls.key", ca_file: "/etc/nats-tls/ca.crt"
  verify: true
}
"""
"""What whoever runs such a server writes; who may do what is printed by `botplatform permissions`."""


def serve(release: Release) -> None:
    """Start the server, and put into the release's namespace what its users need; passwords are kept if there are any."""
    command = [sys.executable, "-m", "botplatform.cli", "permissions"]
    users = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = list(json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout))
    release.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    present = release.kubectl("get", "secret", USERS, CERTIFICATES, "--ignore-not-found", "-o", "name")
    if not present:
        passwords = {name: f"p{random_id()}".encode() for name in names}
        release.apply(secret(USERS, passwords), secret(USERS, passwords, NAMESPACE))
        release.apply(*secrets([HOST], (NAMESPACE, "nats-tls"), ("", CERTIFICATES)))
    release.apply(*_objects(names, CONFIG + users))
    wait_for("the server elsewhere", 120, lambda: ready(release))


def ready(release: Release) -> bool:
    """Tell whether the server answers."""
    found = json.loads(release.kubectl("get", "statefulset", NAME, "--namespace", NAMESPACE, "-o", "json"))
    return bool(found["status"].get("readyReplicas") == 1)


def remove(release: Release) -> None:
    """Take the server and its log away."""
    release.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout_s=300)
    release.kubectl("delete", "secret", USERS, CERTIFICATES, "--ignore-not-found")


def _objects(users: list[str], config: str) -> list[dict[str, Any]]:
    labels = {"app": NAME}
    metadata = {"name": NAME, "namespace": NAMESPACE}
    mounts = {"config": "/etc/nats", "tls": "/etc/nats-tls", "data": "/data"}
    server = {
        "name": "nats",
        "image": IMAGE,
        "command": ["nats-server", "--config", "/etc/nats/nats.conf"],
        "env": [
            {"name": f"{user.upper()}_PASSWORD", "valueFrom": {"secretKeyRef": {"name": USERS, "key": user}}}
            for user in users
        ],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8222}, "periodSeconds": 2},
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
    }
    volumes = [{"name": "config", "configMap": {"name": NAME}}, {"name": "tls", "secret": {"secretName": "nats-tls"}}]
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "6Gi"}}}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"nats.conf": config}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"name": "client", "port": 4222}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": metadata,
            "spec": {
                "serviceName": NAME,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [server], "volumes": volumes}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
            },
        },
    ]
