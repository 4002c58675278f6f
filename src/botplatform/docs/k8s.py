"""Write the plain manifests below `k8s/`, rendered from the chart: `python -m botplatform.docs.k8s`. Needs Helm.

`base` is what the chart makes of `k8s/values/base.yaml`; an overlay is what has to be added, changed or removed for
what it makes of the values of that overlay as well. The same chart and values always give the same files.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from botplatform.errors import SettingsError

__all__ = ["NAMESPACE", "OVERLAYS", "find_helm", "manifests", "objects_of"]

Object = dict[str, Any]

NAMESPACE: Final = "botplatform"
OVERLAYS: Final = ("laptop", "production")
NOTE: Final = "# Rendered from charts/botplatform by `python -m botplatform.docs.k8s`; do not edit.\n"
BASE: Final = "base"


def find_helm() -> str | None:
    """Return where Helm is: in the PATH, or where `go install` puts it."""
    places = os.pathsep.join([os.environ.get("PATH", ""), str(Path.home() / "go" / "bin")])
    return shutil.which("helm", path=places)


def manifests(root: Path) -> dict[str, str]:
    """Return every file below `k8s/` that is rendered: path to text. Raises `SettingsError` where Helm is missing."""
    base = objects_of(root, BASE)
    files = dict(_base_files(base))
    for overlay in OVERLAYS:
        files |= _overlay_files(overlay, base, objects_of(root, BASE, overlay))
    return files


def objects_of(root: Path, *values: str) -> dict[str, Object]:
    """Return what the chart makes of files below `k8s/values`: `Kind/name` to object, without what only Helm needs."""
    helm = find_helm()
    if helm is None:
        raise SettingsError("helm is not installed: `go install helm.sh/helm/v3/cmd/helm@v3.22.0`")
    files = [part for name in values for part in ("--values", str(root / "k8s" / "values" / f"{name}.yaml"))]
    chart = root / "charts" / "botplatform"
    command = [helm, "template", "botplatform", str(chart), "--namespace", NAMESPACE, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)  # noqa: S603  # our own words
    if done.returncode:
        raise SettingsError(f"helm cannot render {chart} with {', '.join(values)}: {' '.join(done.stderr.split())}")
    found = [_plain(one) for one in yaml.safe_load_all(done.stdout) if one]
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in found}


def _plain(one: Object) -> Object:
    """Take away what only Helm needs; its mark becomes that of whoever applies these."""
    for metadata in (one["metadata"], one.get("spec", {}).get("template", {}).get("metadata", {})):
        labels = metadata.get("labels", {})
        labels.pop("helm.sh/chart", None)
        if "app.kubernetes.io/managed-by" in labels:
            labels["app.kubernetes.io/managed-by"] = "kustomize"
        annotations = metadata.get("annotations", {})
        for name in [name for name in annotations if name.startswith("helm.sh/")]:
            del annotations[name]
        if "annotations" in metadata and not annotations:
            del metadata["annotations"]
    return one


def _base_files(objects: Mapping[str, Object]) -> Iterator[tuple[str, str]]:
    """One file for each component, and one for all policies of the network."""
    grouped: dict[str, list[Object]] = {"namespace": [_namespace()]}
    for one in objects.values():
        component = one["metadata"]["labels"]["app.kubernetes.io/component"]
        grouped.setdefault("network" if one["kind"] == "NetworkPolicy" else component, []).append(one)
    for name, members in sorted(grouped.items()):
        yield f"base/{name}.yaml", NOTE + _dump_all(members)
    resources = [f"{name}.yaml" for name in sorted(grouped)]
    yield "base/kustomization.yaml", _kustomization({"resources": resources})


def _namespace() -> Object:
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def _overlay_files(name: str, base: Mapping[str, Object], wanted: Mapping[str, Object]) -> dict[str, str]:
    """The difference between the base and what is wanted."""
    added = [one for key, one in wanted.items() if key not in base]
    patches = [
        {"target": _target(base[key]), "patch": _patch(changes)}
        for key in base
        if key in wanted and (changes := list(_changes(base[key], wanted[key])))
    ]
    removed = [{"target": _target(base[key]), "patch": _removal(base[key])} for key in base if key not in wanted]
    body: Object = {"resources": ["../../base", *(["added.yaml"] if added else [])]}
    if patches or removed:
        body["patches"] = [*removed, *patches]
    files = {f"overlays/{name}/kustomization.yaml": _kustomization(body)}
    if added:
        files[f"overlays/{name}/added.yaml"] = NOTE + _dump_all(added)
    return files


def _target(one: Object) -> Object:
    group, _, version = one["apiVersion"].rpartition("/")
    found = {"group": group, "version": version, "kind": one["kind"], "name": one["metadata"]["name"]}
    return {key: value for key, value in found.items() if value}


def _patch(changes: list[Object]) -> _Text:
    """Write the operations; kustomize would take the last line's end away from a text at the end of them."""
    text = _dump(changes)
    return _Text(text + "# end\n" if "\n" in str(changes[-1].get("value", "")) else text)


def _removal(one: Object) -> _Text:
    metadata = {"name": one["metadata"]["name"]}
    return _Text(
        _dump({"$patch": "delete", "apiVersion": one["apiVersion"], "kind": one["kind"], "metadata": metadata})
    )


def _changes(old: Any, new: Any, path: str = "") -> Iterator[Object]:
    """Yield the operations of a JSON patch; lists of another length are replaced."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in (*old, *(key for key in new if key not in old)):
            below = f"{path}/{str(key).replace('~', '~0').replace('/', '~1')}"
            if key not in new:
                yield {"op": "remove", "path": below}
            elif key not in old:
                yield {"op": "add", "path": below, "value": new[key]}
            else:
                yield from _changes(old[key], new[key], below)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, pair in enumerate(zip(old, new, strict=True)):
            yield from _changes(*pair, f"{path}/{index}")
    elif old != new or type(old) is not type(new):
        yield {"op": "replace", "path": path, "value": new}


class _Text(str):
    """A text that is written over several lines."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are, and items of lists below their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002  # PyYAML's signature
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002  # PyYAML's signature
        return True


def _text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(_Text, _text)


def _dump(value: object) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=1000)


def _dump_all(objects: Sequence[Object]) -> str:
    return "---\n".join(map(_dump, json.loads(json.dumps(objects))))


def _kustomization(body: Mapping[str, object]) -> str:
    head = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    return NOTE + _dump({**head, **body})


def main(root: Path) -> None:
    """Write every file below `k8s/`, remove those that are rendered no more, and print where."""
    files = manifests(root)
    for folder in (root / "k8s" / name for name in (BASE, "overlays")):
        for path in folder.rglob("*.yaml"):
            if str(path.relative_to(root / "k8s")) not in files:
                path.unlink()
    for name, text in files.items():
        path = root / "k8s" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
