"""The plain manifests are what the chart makes, and kustomize builds them."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from botplatform.docs.chart import USERS
from botplatform.docs.k8s import OVERLAYS, find_helm, manifests, objects_of

Object = dict[str, Any]
ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def key_of(one: Object) -> str:
    return f"{one['kind']}/{one['metadata']['name']}"


def built(folder: Path) -> dict[str, Object]:
    """Do what `kustomize build` does, as far as these files need it: resources, JSON patches, removals."""
    body = yaml.load((folder / "kustomization.yaml").read_text(), LOADER)
    found: dict[str, Object] = {}
    for name in body["resources"]:
        if (folder / name).is_dir():
            found |= built(folder / name)
        else:
            found |= {key_of(one): one for one in yaml.load_all((folder / name).read_text(), LOADER)}
    for patch in body.get("patches", ()):
        key = f"{patch['target']['kind']}/{patch['target']['name']}"
        changes = yaml.load(patch["patch"], LOADER)
        if isinstance(changes, dict):
            assert changes["$patch"] == "delete"
            del found[key]
            continue
        for change in changes:
            *above, last = [part.replace("~1", "/").replace("~0", "~") for part in change["path"].split("/")[1:]]
            target: Any = found[key]
            for part in above:
                target = target[int(part) if isinstance(target, list) else part]
            place: Any = int(last) if isinstance(target, list) else last
            if change["op"] == "remove":
                del target[place]
            else:
                assert (change["op"] == "add") == (place not in target if isinstance(target, dict) else False)
                target[place] = copy.deepcopy(change["value"])
    return found


@pytest.fixture(scope="module")
def wanted() -> dict[str, dict[str, Object]]:
    """What the chart makes of the values of each folder."""
    if find_helm() is None:
        pytest.skip("helm is not installed: `go install helm.sh/helm/v3/cmd/helm@v3.22.0`")
    return {"base": objects_of(ROOT, "base")} | {name: objects_of(ROOT, "base", name) for name in OVERLAYS}


def test_the_manifests_are_fresh(wanted: dict[str, dict[str, Object]]) -> None:
    files = manifests(ROOT)
    there = {str(path.relative_to(K8S)) for name in ("base", "overlays") for path in (K8S / name).rglob("*.yaml")}
    assert there == files.keys(), "run `.venv/bin/python -m botplatform.docs.k8s` and commit k8s/"
    stale = [name for name, text in files.items() if (K8S / name).read_text() != text]
    assert stale == [], "run `.venv/bin/python -m botplatform.docs.k8s` and commit k8s/"


@pytest.mark.parametrize("name", ["base", *OVERLAYS])
def test_what_is_built_is_what_the_chart_makes(wanted: dict[str, dict[str, Object]], name: str) -> None:
    found = built(K8S / ("base" if name == "base" else f"overlays/{name}"))
    found.pop("Namespace/botplatform")
    assert found.keys() == wanted[name].keys()
    assert [key for key, one in found.items() if one != wanted[name][key]] == []


@pytest.mark.parametrize("name", ["base", *OVERLAYS])
def test_kustomize_builds_the_same(name: str) -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed: it brings kustomize")
    folder = K8S / ("base" if name == "base" else f"overlays/{name}")
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {key_of(one): one for one in yaml.load_all(done.stdout, LOADER)} == built(folder)


@pytest.mark.parametrize("name", OVERLAYS)
def test_nothing_random_and_nothing_secret_is_in_them(name: str) -> None:
    objects = built(K8S / "overlays" / name)
    assert not any(one["kind"] == "Secret" for one in objects.values())
    assert "helm" not in str(objects).lower()
    namespace = objects["Namespace/botplatform"]["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {one["metadata"].get("namespace", "botplatform") for one in objects.values()} == {"botplatform"}


def test_the_readme_makes_every_password() -> None:
    text = (K8S / "README.md").read_text()
    users = re.search(r"for user in ([\w \\\n]+);", text)
    assert users is not None
    assert set(users[1].replace("\\", " ").split()) == {*USERS, "route", "sys"}
    used = {
        variable["valueFrom"]["secretKeyRef"]["key"]
        for one in built(K8S / "base").values()
        if one["kind"] in ("Deployment", "StatefulSet", "Job")
        for container in one["spec"]["template"]["spec"]["containers"]
        for variable in container.get("env", ())
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    assert used <= {*USERS, "route", "sys"}


def test_production_is_more_than_a_laptop() -> None:
    laptop, production = (built(K8S / "overlays" / name) for name in OVERLAYS)
    nats = "StatefulSet/botplatform-nats"
    assert (laptop[nats]["spec"]["replicas"], production[nats]["spec"]["replicas"]) == (1, 3)
    assert not any(key.startswith("HorizontalPodAutoscaler/") for key in laptop)
    assert production["HorizontalPodAutoscaler/botplatform-signals"]["spec"]["minReplicas"] == 2
    assert "PodMonitor/botplatform-metrics" in production
