"""kubectl and helm, as this script needs them: one release in one namespace."""

from __future__ import annotations

import base64
import json
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

POLL_S = 1.0


class StepFailed(Exception):
    """Something did not happen that should have."""


@dataclass(frozen=True)
class Pod:
    """A pod of the release, as far as it matters here."""

    name: str
    uid: str
    component: str
    ready: bool
    """Runs, is ready and does not end."""
    ending: bool
    restarts: int
    image: str

    @classmethod
    def of(cls, found: dict[str, Any]) -> Pod:
        """Read one item of `kubectl get pods`."""
        metadata, status = found["metadata"], found["status"]
        conditions = {each["type"]: each["status"] for each in status.get("conditions", [])}
        ending = "deletionTimestamp" in metadata
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            component=metadata.get("labels", {}).get("app.kubernetes.io/component", ""),
            ready=conditions.get("Ready") == "True" and not ending,
            ending=ending,
            restarts=sum(each["restartCount"] for each in status.get("containerStatuses", [])),
            image=found["spec"]["containers"][0]["image"],
        )


@dataclass(frozen=True)
class Release:
    """A release of the chart, reached by the commands of the person who runs this."""

    name: str
    namespace: str
    chart: str
    kubectl_command: tuple[str, ...] = ("kubectl",)
    helm_command: tuple[str, ...] = ("helm",)

    def kubectl(self, *arguments: str, timeout_s: float = 120, told: str = "") -> str:
        """Run kubectl in the namespace, tell it something on its input, and return what it printed."""
        return _run([*self.kubectl_command, "--namespace", self.namespace, *arguments], timeout_s, told)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Make objects, or change those that are there; each says its namespace, or has that of the release."""
        many = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        command = [*self.kubectl_command, "apply", "--filename", "-"]
        for each in objects:
            if each["kind"] != "Namespace":
                each["metadata"].setdefault("namespace", self.namespace)
        _run(command, 120, json.dumps(many))

    def helm(self, *arguments: str, timeout_s: float = 900) -> str:
        """Run helm in the namespace, and return what it printed."""
        return _run([*self.helm_command, "--namespace", self.namespace, *arguments], timeout_s)

    def get(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        """Return the objects of one kind that belong to the release."""
        selector = f"app.kubernetes.io/instance={self.name}"
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "-l", selector, "-o", "json", *arguments))[
            "items"
        ]
        return found

    def installed(self) -> bool:
        """Tell whether Helm has the release."""
        return bool(json.loads(self.helm("list", "--all", "--filter", f"^{self.name}$", "--output", "json")))

    def pods(self, component: str = "") -> list[Pod]:
        """Return the pods that should run, those of jobs left out."""
        found = [Pod.of(each) for each in self.get("pods") if not _of_a_job(each)]
        return sorted((each for each in found if component in ("", each.component)), key=lambda pod: pod.name)

    def name_of(self, component: str) -> str:
        """Return the name of a component's Deployment or StatefulSet, Service and HPA."""
        for kind in ("deployments", "statefulsets"):
            for each in self.get(kind):
                if each["metadata"]["labels"].get("app.kubernetes.io/component") == component:
                    return str(each["metadata"]["name"])
        raise StepFailed(f"the release {self.name} has no component {component!r}")

    @property
    def full_name(self) -> str:
        """What the names of the release's objects begin with."""
        return self.name if "botplatform" in self.name else f"{self.name}-botplatform"

    def replicas(self, component: str) -> int:
        """Return how many replicas a Deployment has that are ready."""
        return sum(pod.ready for pod in self.pods(component))

    def all_ready(self) -> bool:
        """Tell whether every Deployment and StatefulSet has all of its replicas, new and ready, and nothing else runs."""
        for kind in ("deployments", "statefulsets"):
            for each in self.get(kind):
                spec, status = each["spec"], each["status"]
                wanted = spec.get("replicas", 1)
                if status.get("observedGeneration", 0) < each["metadata"]["generation"]:
                    return False
                if any(status.get(name, 0) != wanted for name in ("replicas", "updatedReplicas", "readyReplicas")):
                    return False
        return all(pod.ready for pod in self.pods())

    def password(self, user: str) -> str:
        """Return the password of a user of the built-in NATS."""
        for secret in self.get("secrets"):
            if user in secret.get("data", {}):
                return base64.b64decode(secret["data"][user]).decode()
        raise StepFailed(f"no Secret of the release {self.name} has a password of the user {user!r}")

    def cpu_millicores(self, component: str) -> list[int]:
        """Return what each pod of a component takes at present; empty while nothing is known."""
        selector = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component={component}"
        try:
            lines = self.kubectl("top", "pods", "--no-headers", "-l", selector).splitlines()
        except StepFailed:
            return []
        return [int(line.split()[1].removesuffix("m")) for line in lines]

    @contextmanager
    def forwarded(self, target: str, port: int, namespace: str = "") -> Iterator[int]:
        """Forward a free port of this machine to a port of a Service or pod, and hand it out."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free: int = probe.getsockname()[1]
        where = namespace or self.namespace
        command = [*self.kubectl_command, "--namespace", where, "port-forward", "--address", "127.0.0.1"]
        with subprocess.Popen([*command, target, f"{free}:{port}"], stdout=subprocess.DEVNULL) as process:
            try:
                wait_for(f"port {port} of {target}", 30, lambda: _answers(free))
                yield free
            finally:
                process.terminate()


def wait_for(what: str, seconds: float, condition: Callable[[], object], poll_s: float = POLL_S) -> float:
    """Wait until a condition holds, and return the seconds that took; raise `StepFailed` after `seconds`."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise StepFailed(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(poll_s)
    return time.monotonic() - began


def _run(command: Sequence[str], timeout_s: float, told: str = "") -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s, input=told)
    if done.returncode:
        said = re.sub(r"\s+", " ", done.stderr or done.stdout).strip()
        raise StepFailed(f"`{' '.join(command[:6])} …` failed: {said[-800:]}")
    return done.stdout


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _of_a_job(pod: dict[str, Any]) -> bool:
    return any(owner["kind"] == "Job" for owner in pod["metadata"].get("ownerReferences", [])) or (
        "helm.sh/hook" in pod["metadata"].get("annotations", {})
    )
