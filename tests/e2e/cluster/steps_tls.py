"""TLS on the release's own three servers, and another certificate while they run."""

from __future__ import annotations

import time

from certificates import secrets
from kube import StepFailed
from reach import Server
from steps import Run, install, market_gap, orders, probe
from steps_servers import copies, healed

SECRET = "nats-own-tls"
SERVER = Server(certificates=SECRET)
VALUES = f"""
nats:
  replicas: 3
  tls: {{existingSecret: {SECRET}}}
config: {{feed: {{rate: 2}}}}
"""
RELOADED_S = 100
"""Seconds in which kubelets bring another Secret to the pods, and the reloader tells the server."""


def certificate(run: Run) -> str:
    """Make a certificate for the Service of the release."""
    run.release.apply(*secrets(_names(run), ("", SECRET)))
    return f"for {', '.join(_names(run))}"


def renew(run: Run) -> str:
    """Have another certificate, of another authority, while all is running; restart the engines one kind at a time."""
    before = {pod.uid for pod in run.release.pods("nats")}

    def change() -> float:
        began = time.monotonic()
        run.release.apply(*secrets(_names(run), ("", SECRET)))
        time.sleep(RELOADED_S)
        selector = f"app.kubernetes.io/instance={run.release.name}"
        run.release.kubectl("rollout", "restart", "deployment", "--selector", selector)
        healed(run)
        return time.monotonic() - began

    took, gap = market_gap(run, change)
    if before != {pod.uid for pod in run.release.pods("nats")}:
        raise StepFailed("a server was restarted")
    return f"in {took:.0f} s, of which {RELOADED_S} are the wait for kubelets; no server restarted; no symbol without a tick for more than {gap:.1f} s"


def _names(run: Run) -> list[str]:
    service = f"{run.release.full_name}-nats"
    return [service, f"{service}.{run.release.namespace}.svc"]


STEPS = {
    "certificate": certificate,
    "install": install,
    "copies": copies,
    "orders": orders,
    "test": probe,
    "renew": renew,
}
