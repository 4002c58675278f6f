"""Three NATS servers: every copy in place, leaders killed under load, servers restarted in turn, a disk lost."""

from __future__ import annotations

import json
import time
from typing import Any

import nats.errors
from kube import StepFailed, wait_for
from steps import PATIENCE_S, Run, install, jaeger, market_gap, orders, probe, reinstall
from watch import asked, audit_range

VALUES = """
nats: {replicas: 3}
config: {feed: {rate: 2}}
"""
SERVERS = 3
KILLS = 3
MOVING = 100
"""Writes that a copy may be behind, while the log grows."""


def copies(run: Run) -> str:
    """Look at every stream and at the configuration of every server: three copies each, and every write on the disk."""
    told = streams(run)
    wrong = [name for name, each in told.items() if each["config"]["num_replicas"] != SERVERS or not whole(each)]
    if wrong:
        raise StepFailed(f"not {SERVERS} copies that are up to date: {wrong}")
    for pod in run.release.pods("nats"):
        raw = f"/api/v1/namespaces/{run.release.namespace}/pods/{pod.name}:8222/proxy/jsz"
        if not json.loads(run.release.kubectl("get", "--raw", raw))["config"].get("sync_always"):
            raise StepFailed(f"{pod.name} does not force every write to the disk")
    leaders = sorted({each["cluster"]["leader"] for each in told.values()})
    return f"{len(told)} streams and buckets, {SERVERS} copies each, led by {', '.join(leaders)}; sync_interval always"


def leaders(run: Run) -> str:
    """Kill the server that leads the log, again and again, without a warning, under load."""
    run.deploy(run.choices.load_rate)
    time.sleep(10)
    took: list[float] = []

    def kill_all() -> float:
        for _ in range(KILLS):
            began = time.monotonic()
            leader = str(streams(run)["EVENTS"]["cluster"]["leader"])
            known = restarts(run, leader)
            run.release.kubectl("exec", leader, "-c", "nats", "--", "sh", "-c", "kill -9 $(cat /var/run/nats/nats.pid)")
            wait_for("the server to come back", PATIENCE_S, lambda n=known, who=leader: restarts(run, who) > n)  # type: ignore[misc]  # mypy cannot infer a default
            healed(run)
            took.append(time.monotonic() - began)
            time.sleep(10)
        return 0.0

    _, gap = market_gap(run, kill_all)
    rate = run.choices.load_rate * run.choices.symbols
    return (
        f"{KILLS} leaders killed at {rate:.0f} snapshots/s; all copies up to date again after "
        f"{', '.join(f'{s:.0f} s' for s in took)}; no symbol without a tick for more than {gap:.1f} s"
    )


def rolling(run: Run) -> str:
    """Restart all servers in turn, as an upgrade of them does, under load."""
    before = {pod.uid for pod in run.release.pods("nats")}
    name = run.release.name_of("nats")

    def restart() -> float:
        began = time.monotonic()
        run.release.kubectl("rollout", "restart", f"statefulset/{name}")
        run.release.kubectl("rollout", "status", f"statefulset/{name}", "--timeout=600s", timeout_s=620)
        healed(run)
        return time.monotonic() - began

    took, gap = market_gap(run, restart)
    if before & {pod.uid for pod in run.release.pods("nats")}:
        raise StepFailed("a server was not restarted")
    return f"{SERVERS} servers in {took:.0f} s, no symbol without a tick for more than {gap:.1f} s"


def disk(run: Run) -> str:
    """Take one server's volume away, with its pod, under load: it gets everything again from the others."""
    pod = run.release.pods("nats")[-1].name
    began = time.monotonic()
    run.release.kubectl("delete", "persistentvolumeclaim", f"data-{pod}", "--wait=false")
    run.release.kubectl("delete", "pod", pod)
    run.ready()
    healed(run)
    return f"{pod} has its copies again after {time.monotonic() - began:.0f} s"


def again(run: Run) -> str:
    """Uninstall, install again on the kept volumes of three servers, and go on where the log ended."""
    said = reinstall(run)
    healed(run)
    return said


def streams(run: Run) -> dict[str, dict[str, Any]]:
    """Return what the servers tell about every stream, those of the buckets too; each has to have somebody who tells."""
    found = asked(run.release, run.server, "$JS.API.STREAM.LIST", user="setup")
    if found.get("missing"):
        raise StepFailed(f"nobody tells of {', '.join(found['missing'])}")
    return {each["config"]["name"]: each for each in found["streams"]}


def whole(stream: dict[str, Any]) -> bool:
    """Tell whether a stream has a leader, and all of its copies are there and up to date."""
    cluster = stream.get("cluster", {})
    peers = cluster.get("replicas", [])
    return (
        bool(cluster.get("leader"))
        and len(peers) == SERVERS - 1
        and all((peer["current"] or 0 < peer.get("lag", 0) < MOVING) and not peer.get("offline") for peer in peers)
    )


def healed(run: Run) -> float:
    """Wait until every pod is ready, every stream is whole, and the log grows; return the seconds that took."""
    took = run.ready()
    took += wait_for("all copies to be up to date", PATIENCE_S, lambda: _all_whole(run))
    last = audit_range(run.release, run.server)[1]
    return took + wait_for("the log to grow", PATIENCE_S, lambda: audit_range(run.release, run.server)[1] > last)


def _all_whole(run: Run) -> bool:
    try:
        told = streams(run)
    except (StepFailed, nats.errors.Error, OSError):
        return False  # the server that was asked has just gone
    return bool(told) and all(whole(each) for each in told.values())


def restarts(run: Run, server: str) -> int:
    """Return how often the containers of a server have started again; 0 while there is no such pod."""
    return sum(pod.restarts for pod in run.release.pods("nats") if pod.name == server)


STEPS = {
    "install": install,
    "copies": copies,
    "orders": orders,
    "jaeger": jaeger,
    "test": probe,
    "leaders": leaders,
    "rolling": rolling,
    "disk": disk,
    "reinstall": again,
}
