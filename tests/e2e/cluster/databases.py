"""A PostgreSQL that is none of the chart's: in a namespace of its own, with a password."""

from __future__ import annotations

import json
from typing import Any

from certificates import secret
from kube import Release, wait_for

from botplatform.core.seam import random_id

NAMESPACE = "database-elsewhere"
NAME = "postgres"
USER = "trader"
DATABASE = "trading"
ADDRESS = "database-elsewhere-url"
"""The Secret with the address, in the namespace of the release."""
IMAGE = "postgres:17-alpine"
HOST = f"{NAME}.{NAMESPACE}.svc"


def serve(release: Release) -> None:
    """Start the server, and put its address into the release's namespace; a password that is there is kept."""
    release.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    if not release.kubectl("get", "secret", ADDRESS, "--ignore-not-found", "-o", "name"):
        password = f"p{random_id()}"
        url = f"postgresql://{USER}:{password}@{HOST}:5432/{DATABASE}"
        release.apply(secret(NAME, {"password": password.encode()}, NAMESPACE), secret(ADDRESS, {"url": url.encode()}))
    release.apply(*_objects())
    wait_for("the database", 180, lambda: ready(release))


def ready(release: Release) -> bool:
    """Tell whether the server answers."""
    found = json.loads(release.kubectl("get", "statefulset", NAME, "--namespace", NAMESPACE, "-o", "json"))
    return bool(found["status"].get("readyReplicas") == 1)


def ask(release: Release, query: str) -> str:
    """Return the one value that a query finds, as text."""
    command = ("psql", "--username", USER, "--dbname", DATABASE, "--no-align", "--tuples-only", "--command", query)
    return release.kubectl("exec", f"{NAME}-0", "--namespace", NAMESPACE, "--", *command).strip()


def stop(release: Release) -> None:
    """Let nobody answer, without a warning."""
    release.kubectl("scale", "statefulset", NAME, "--replicas=0", "--namespace", NAMESPACE)
    where = ("--namespace", NAMESPACE, "--ignore-not-found")
    release.kubectl("delete", "pod", f"{NAME}-0", "--grace-period=0", "--force", *where)


def start(release: Release) -> None:
    """Let it answer again."""
    release.kubectl("scale", "statefulset", NAME, "--replicas=1", "--namespace", NAMESPACE)
    wait_for("the database", 180, lambda: ready(release))


def _objects() -> list[dict[str, Any]]:
    labels = {"app": NAME}
    metadata = {"name": NAME, "namespace": NAMESPACE}
    check = {"command": ["pg_isready", "--host", "127.0.0.1", "--username", USER]}
    server = {
        "name": "postgres",
        "image": IMAGE,
        "env": [
            {"name": "POSTGRES_USER", "value": USER},
            {"name": "POSTGRES_DB", "value": DATABASE},
            {"name": "POSTGRES_PASSWORD", "valueFrom": {"secretKeyRef": {"name": NAME, "key": "password"}}},
            {"name": "PGDATA", "value": "/data/postgres"},
        ],
        "readinessProbe": {"exec": check, "periodSeconds": 2},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"name": "postgres", "port": 5432}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": metadata,
            "spec": {
                "serviceName": NAME,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [server]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
            },
        },
    ]
