"""KEDA instead of HPAs on CPU: scaling by lag, calm back, the fallback, and the way from one to the other."""

from __future__ import annotations

import json
import time
from typing import Any

from kube import StepFailed, wait_for
from steps import PATIENCE_S, TRADERS, Run, files, install, market, orders, rest

PARTITIONS = 16
VALUES = """
autoscaling:
  kind: keda
  # Calm for as long as can be waited for.
  behavior: {scaleDown: {stabilizationWindowSeconds: 30, policies: [{type: Pods, value: 2, periodSeconds: 15}]}}
config: {feed: {rate: 2}}
engines:
  signals:
    # Slow on purpose, so that a small load leaves a lag.
    resources: {requests: {cpu: 40m}, limits: {cpu: 40m}}
"""


def scalers(run: Run) -> str:
    """Look at the ScaledObjects: all ready, one replica each, none that may go above its partitions."""
    said = all_scaled(run)
    replicas = {each: run.release.replicas(each) for each in TRADERS}
    if any(each != 1 for each in replicas.values()):
        raise StepFailed(f"the install has scaled itself: {replicas}")
    return said


def all_scaled(run: Run) -> str:
    """Wait until all ScaledObjects are ready, and say what KEDA has made of them."""
    found = run.release.get("scaledobjects")
    wait_for("the ScaledObjects to be ready", 120, lambda: all(is_(each, "Ready") for each in scaled(run)))
    components = sorted(each["metadata"]["labels"]["app.kubernetes.io/component"] for each in found)
    if components != sorted(TRADERS):
        raise StepFailed(f"there are ScaledObjects of {components}")
    most = {each["metadata"]["name"]: each["spec"]["maxReplicas"] for each in hpas(run)}
    if len(most) != len(TRADERS) or any(each > PARTITIONS for each in most.values()):
        raise StepFailed(f"KEDA has made {most}")
    return f"{len(found)} ScaledObjects ready, {len(most)} HPAs by KEDA, at most {max(most.values())} replicas each"


def above(run: Run) -> str:
    """Ask for more replicas than there are partitions: refused, with a sentence, and nothing changed."""
    try:
        run.deploy(0, "--set", "engines.signals.autoscaling.maxReplicas=17")
    except StepFailed as e:
        if "above config.bus.partitions" in str(e):
            return "refused: " + str(e).split("): ")[-1]
        raise
    raise StepFailed("17 replicas of 16 partitions were not refused")


def lag(run: Run) -> str:
    """Load signals with more than one replica of it can do, until it has several, and wait until it has one again."""
    run.deploy(run.choices.quiet_rate)
    started = run.deploy(run.choices.load_rate, wait=False)
    began = time.monotonic()
    most, highest = 0, 0
    several = 0.0
    until = began + PATIENCE_S
    while time.monotonic() < until:
        replicas = run.release.replicas("signals")
        most, highest = max(most, replicas), max(highest, asked_lag(run))
        if replicas > 1 and not several:
            several = time.monotonic() - began
            until = time.monotonic() + run.choices.load_s
        time.sleep(2)
    if not several:
        raise StepFailed(f"signals had one replica for {PATIENCE_S:.0f} s; a lag of {highest} at most")
    if most > PARTITIONS:
        raise StepFailed(f"signals had {most} replicas")
    gone = time.monotonic()
    run.deploy(run.choices.quiet_rate, wait=False)
    wait_for("signals to have one replica again", PATIENCE_S * 2, lambda: len(run.release.pods("signals")) == 1)
    back = time.monotonic() - gone
    rate = run.choices.load_rate * run.choices.symbols
    return (
        f"{rate:.0f} snapshots/s of {run.choices.symbols} symbols, signals limited to 40 m of CPU: a lag of {highest:,} at "
        f"most; several replicas {started + several:.0f} s after the change, {most} at most; one again {back:.0f} s after"
    )


def fallback(run: Run) -> str:
    """Let nobody answer /lag: signals has the replicas of the fallback, and one again once it is answered."""
    name = run.release.name_of("signals")
    selector = run.release.get("services", "--field-selector", f"metadata.name={name}")[0]["spec"]["selector"]
    nobody = {**selector, "app.kubernetes.io/component": "nobody"}
    began = time.monotonic()
    patch_selector(run, name, nobody)
    for pod in run.release.pods("signals"):  # KEDA holds a connection to it, which outlives the Service
        run.release.kubectl("delete", "pod", pod.name)
    try:
        wait_for("the fallback", PATIENCE_S, lambda: is_(scaled(run, "signals")[0], "Fallback"))
        wait_for("its replicas", PATIENCE_S, lambda: run.release.replicas("signals") == FALLBACK)
        took = time.monotonic() - began
        time.sleep(30)
        if run.release.replicas("signals") != FALLBACK:
            raise StepFailed(
                f"signals has {run.release.replicas('signals')} replicas, not the {FALLBACK} of the fallback"
            )
    finally:
        patch_selector(run, name, selector)
    back = wait_for("one replica again", PATIENCE_S * 2, lambda: len(run.release.pods("signals")) == 1)
    wait_for("the end of the fallback", PATIENCE_S, lambda: not is_(scaled(run, "signals")[0], "Fallback"))
    return f"{FALLBACK} replicas {took:.0f} s after /lag had gone; one again {back:.0f} s after it was back"


FALLBACK = 2


def there_and_back(run: Run) -> str:
    """Upgrade to HPAs on CPU, and back to KEDA."""
    with files(market(run.choices, run.choices.quiet_rate)) as chosen:
        forth = run.deploy(0, *chosen, "--set", "autoscaling.kind=hpa")
        wait_for("HPAs of the chart's own", 60, lambda: len(by_keda(run)) == len(TRADERS) and not any(by_keda(run)))
        if scaled(run):
            raise StepFailed("there are ScaledObjects left")
        back = run.deploy(0, *chosen)
    wait_for("HPAs of KEDA's", 60, lambda: len(by_keda(run)) == len(TRADERS) and all(by_keda(run)))
    return f"{forth:.0f} s to HPAs, {back:.0f} s back; {all_scaled(run)}"


def by_keda(run: Run) -> list[bool]:
    """Tell of each HPA of the release whether KEDA has made it; KEDA gives it the labels of the ScaledObject."""
    return [each["metadata"]["name"].startswith("keda-hpa-") for each in hpas(run)]


def hpas(run: Run) -> list[dict[str, Any]]:
    """Return the HPAs of the release's Deployments, KEDA's as well."""
    names = {run.release.name_of(each) for each in TRADERS}
    found = json.loads(run.release.kubectl("get", "hpa", "-o", "json"))["items"]
    return [each for each in found if each["spec"]["scaleTargetRef"]["name"] in names]


def scaled(run: Run, component: str = "") -> list[dict[str, Any]]:
    """Return the ScaledObjects of the release, or of one component."""
    found = run.release.get("scaledobjects")
    return [e for e in found if component in ("", e["metadata"]["labels"]["app.kubernetes.io/component"])]


def is_(scaled_object: dict[str, Any], condition: str) -> bool:
    """Tell whether a condition of a ScaledObject holds."""
    conditions = scaled_object.get("status", {}).get("conditions", [])
    return any(each["type"] == condition and each["status"] == "True" for each in conditions)


def asked_lag(run: Run) -> int:
    """Ask signals for its lag, as KEDA does; 0 while nobody answers."""
    where = f"/api/v1/namespaces/{run.release.namespace}/services/{run.release.name_of('signals')}:8080/proxy/lag"
    try:
        return int(json.loads(run.release.kubectl("get", "--raw", where))["lag"])
    except StepFailed:
        return 0


def patch_selector(run: Run, service: str, selector: dict[str, str]) -> None:
    """Let a Service lead to other pods."""
    run.release.kubectl("patch", "service", service, "--patch", json.dumps({"spec": {"selector": selector}}))


STEPS = {
    "install": install,
    "scalers": scalers,
    "orders": orders,
    "rest": rest,
    "above": above,
    "lag": lag,
    "fallback": fallback,
    "hpa": there_and_back,
}
