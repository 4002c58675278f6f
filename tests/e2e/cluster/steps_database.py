"""The event store in a PostgreSQL database elsewhere, which goes away for a while."""

from __future__ import annotations

import time

import databases
from kube import StepFailed, wait_for
from steps import PATIENCE_S, Run, counted, install, kills, orders, probe, reinstall
from watch import audit_range

VALUES = f"""
database: {{existingSecret: {databases.ADDRESS}}}
config: {{feed: {{rate: 2}}}}
"""
AWAY_S = 20
ORDERS = "SELECT count(*) FROM botplatform.events WHERE type = 'order.submitted'"


def database(run: Run) -> str:
    """Start a PostgreSQL in a namespace of its own, and a Secret with its address."""
    databases.serve(run.release)
    return f"{databases.ask(run.release, 'SHOW server_version')} at {databases.HOST}"


def install_there(run: Run) -> str:
    """Install with `database.existingSecret`, and wait for all pods."""
    said = install(run)
    claims = [each["metadata"]["name"] for each in run.release.get("pvc")]
    if any("storage" in name for name in claims):
        raise StepFailed(f"storage has a volume: {claims}")
    return f"{said}; volumes {', '.join(sorted(claims))}"


def stored(run: Run) -> str:
    """Find every order of the log in the database, and the chain of one of them by `botplatform trace`."""
    found = counted(run)
    wait_for("the orders", PATIENCE_S, lambda: int(databases.ask(run.release, ORDERS)) >= found.submitted)
    twice = databases.ask(run.release, "SELECT count(*) - count(DISTINCT id) FROM botplatform.events")
    chain = run.seen["chain"]
    pod = f"deployment/{run.release.name_of('storage')}"
    lines = run.release.kubectl("exec", pod, "--", "botplatform", "trace", str(chain)).splitlines()
    if twice != "0" or not any("order.filled" in line for line in lines):
        raise StepFailed(f"{twice} events twice; the chain {chain}: {lines}")
    everything = databases.ask(run.release, "SELECT count(*) FROM botplatform.events")
    return f"{int(everything):,} events, {found.submitted:,} orders of the log or more; a chain of {len(lines)} lines"


def away(run: Run) -> str:
    """Take the database away under load: all goes on but storage, which stores everything afterwards."""
    run.deploy(run.choices.load_rate)
    time.sleep(5)
    databases.stop(run.release)
    before = audit_range(run.release, run.server)[1]
    wait_for("storage to be not ready", PATIENCE_S, lambda: not run.release.replicas("storage"))
    time.sleep(AWAY_S)
    after = audit_range(run.release, run.server)[1]
    others = [pod.name for pod in run.release.pods() if not pod.ready and pod.component != "storage"]
    if after - before < AWAY_S or others:
        raise StepFailed(f"the log went from {before} to {after}; not ready: {others}")
    databases.start(run.release)
    began = time.monotonic()
    run.ready()
    took = time.monotonic() - began
    run.deploy(run.choices.quiet_rate)
    restarts = sum(pod.restarts for pod in run.release.pods())
    return f"{after - before:,} events meanwhile; ready {took:.0f} s after the database, {restarts} restarts; {stored(run)}"


def standby(run: Run) -> str:
    """Give storage a second replica, and delete the one that stores: the other one goes on."""
    before = {pod.name for pod in run.release.pods("storage")}
    run.deploy(run.choices.quiet_rate, "--set", "engines.storage.replicas=2")
    pods = [pod.name for pod in run.release.pods("storage")]
    active = sorted(before & set(pods)) or pods[:1]
    began = time.monotonic()
    run.release.kubectl("delete", "pod", *active, "--grace-period=0", "--force")
    sequence = audit_range(run.release, run.server)[1]
    newest = f"SELECT count(*) FROM botplatform.events WHERE sequence > {sequence}"
    wait_for("what came after it", PATIENCE_S, lambda: databases.ask(run.release, newest) != "0")
    return f"of {len(pods)} replicas {', '.join(active)} deleted; stored again after {time.monotonic() - began:.0f} s; {stored(run)}"


def reinstall_there(run: Run) -> str:
    """Uninstall, install again, and go on where the log and the database ended."""
    return f"{reinstall(run)}; {stored(run)}"


STEPS = {
    "database": database,
    "install": install_there,
    "orders": orders,
    "stored": stored,
    "test": probe,
    "away": away,
    "kills": kills,
    "standby": standby,
    "reinstall": reinstall_there,
}
