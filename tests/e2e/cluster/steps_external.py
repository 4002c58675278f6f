"""A NATS server elsewhere: with TLS, which verifies clients, and a Secret with a password for each user."""

from __future__ import annotations

import time

import elsewhere
from kube import StepFailed, wait_for
from reach import Server
from steps import PATIENCE_S, Run, install, jaeger, kills, market_gap, orders, probe, reinstall
from watch import audit_range

SERVER = Server(
    namespace=elsewhere.NAMESPACE,
    service=elsewhere.NAME,
    users=elsewhere.USERS,
    certificates=elsewhere.CERTIFICATES,
    clients_verified=True,
)
VALUES = f"""
nats:
  enabled: false
  external:
    url: nats://{elsewhere.HOST}:4222
    auth: password
    existingSecret: {elsewhere.USERS}
    tlsSecret: {elsewhere.CERTIFICATES}
    tlsClientCertificate: true
config: {{feed: {{rate: 2}}}}
"""


def server(run: Run) -> str:
    """Start a NATS server in a namespace of its own, with what `botplatform permissions` prints."""
    elsewhere.serve(run.release)
    return f"one server at {elsewhere.HOST}, with TLS, verifying clients"


def install_there(run: Run) -> str:
    """Install with `nats.external`, and wait for all pods."""
    said = install(run)
    if run.release.pods("nats"):
        raise StepFailed("the release has a NATS server of its own")
    return said


def outage(run: Run) -> str:
    """Delete the pod of that server under load, without a warning."""
    run.deploy(run.choices.load_rate)
    time.sleep(10)

    def kill() -> float:
        began = time.monotonic()
        pod, where = f"{elsewhere.NAME}-0", ("--namespace", elsewhere.NAMESPACE)
        run.release.kubectl("delete", "pod", pod, "--grace-period=0", "--force", *where)
        wait_for("the server elsewhere", PATIENCE_S, lambda: elsewhere.ready(run.release))
        run.ready()
        last = audit_range(run.release, run.server)[1]
        wait_for("the log to grow", PATIENCE_S, lambda: audit_range(run.release, run.server)[1] > last)
        return time.monotonic() - began

    took, gap = market_gap(run, kill)
    rate = run.choices.load_rate * run.choices.symbols
    restarts = sum(pod.restarts for pod in run.release.pods())
    return (
        f"at {rate:.0f} snapshots/s; all ready and trading after {took:.0f} s, {restarts} restarts; "
        f"no symbol without a tick for more than {gap:.1f} s"
    )


STEPS = {
    "server": server,
    "install": install_there,
    "orders": orders,
    "jaeger": jaeger,
    "test": probe,
    "kills": kills,
    "outage": outage,
    "reinstall": reinstall,
}
