"""The steps: each does one thing to the release, and says what it measured."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nats.errors
from kube import Release, StepFailed, wait_for
from loads import Market
from reach import Server
from watch import Audit, audit, audit_range, longest_silence, tap, trace, waiting

PATIENCE_S = 300.0
UNDER_WAY = 100
"""Events that may wait, of all groups, when the log is counted: the market does not stop for it."""
TRADERS = ("market-data", "signals", "strategy", "execution")
CHAIN = {
    "strategy": "publish strategy.decision",
    "execution": "publish order.submitted",
    "portfolio": "process order.filled",
}
"""What has to be in the trace of a filled order, by engine."""


@dataclass(frozen=True)
class Choices:
    """What the person who runs this chose."""

    symbols: int = 40
    quiet_rate: float = 0.5
    """Snapshots a second and symbol, while nothing should scale."""
    load_rate: float = 5.0
    """Snapshots a second and symbol, under load."""
    upgrade_rate: float = 2.5
    """Snapshots a second and symbol during the upgrade: the new pods need room beside the old ones."""
    load_target: int = 0
    """Share in percent of the requested CPU that signals should use under load; 0: what the chart says."""
    load_s: float = 120.0
    """Seconds of load after the engine has scaled."""
    signal_rounds: int = 40_000
    """What one more signal costs while signals should scale: rounds of a loop for each snapshot, 1 ms or so; 0: none."""
    rest_s: float = 90.0
    next_tag: str = ""
    """Tag of another image of the platform, for the upgrade."""
    more: tuple[str, ...] = ()
    """Further arguments of every helm install and upgrade."""


@dataclass
class Run:
    """The release, and what is known of it so far."""

    release: Release
    choices: Choices
    server: Server = field(default_factory=Server)
    values: str = ""
    """Values that every install and upgrade has, as YAML."""
    seen: dict[str, object] = field(default_factory=dict)

    def deploy(
        self, rate: float = 0.0, *arguments: str, verb: str = "upgrade", wait: bool = True, costly: bool = False
    ) -> float:
        """Install or upgrade, with as many symbols and snapshots as asked for, and return the seconds until all is ready."""
        began = time.monotonic()
        with files(self.values, market(self.choices, rate, costly=costly) if rate else "") as chosen:
            waits = ("--wait", "--timeout", f"{PATIENCE_S * 2:.0f}s") if wait else ()
            self.release.helm(
                verb, self.release.name, self.release.chart, *chosen, *self.choices.more, *arguments, *waits
            )
        self.ready()
        return time.monotonic() - began

    def ready(self) -> float:
        """Wait until every pod is ready and no other is left, and return the seconds that took."""
        return wait_for("all pods to be ready", PATIENCE_S, self.release.all_ready)


def market(choices: Choices, rate: float, *, costly: bool = False) -> str:
    """Return values with the market that was chosen, at a rate, and maybe the costly signal."""
    rounds = choices.signal_rounds if costly else 0
    return Market(choices.symbols, rate, rounds, choices.load_target).values()


@contextmanager
def files(*texts: str) -> Iterator[tuple[str, ...]]:
    """Write values to files, and return the arguments that name them."""
    with tempfile.TemporaryDirectory() as folder:
        found: list[str] = []
        for number, text in enumerate(texts):
            if text:
                file = Path(folder, f"{number}.yaml")
                file.write_text(text)
                found += ["--values", str(file)]
        yield tuple(found)


def install(run: Run) -> str:
    """Install with the default values, and wait for all pods."""
    run.deploy(verb="install")
    pods = run.release.pods()
    restarts = sum(pod.restarts for pod in pods)
    run.seen["pods"] = len(pods)
    return f"{len(pods)} pods ready, {restarts} restarts"


def orders(run: Run) -> str:
    """See orders through a plain NATS subscription as `tap`, and have refused what it may not do."""
    tapped = tap(run.release, run.server, orders=5, seconds=PATIENCE_S)
    filled = [event for event in tapped.events if event.type == "order.filled"]
    run.seen["chain"] = filled[-1].correlation_id
    return (
        f"{tapped.types()}; first after {tapped.first_s:.1f} s; {len(tapped.refused)} forbidden subjects, all refused"
    )


def jaeger(run: Run) -> str:
    """Find the chain of one of those orders in Jaeger, from the decision to the portfolio."""
    chain = str(run.seen["chain"])

    def missing() -> list[str]:
        spans = trace(run.release, chain)
        run.seen["spans"] = spans
        return [f"{who}: {what}" for who, what in CHAIN.items() if not any(who in s and o == what for s, o, _ in spans)]

    try:
        wait_for("the trace", 60, lambda: not missing())
    except StepFailed as e:
        raise StepFailed(f"the trace {chain} lacks {missing()}: it has {run.seen['spans']}") from e
    spans = trace(run.release, chain)
    roots = [operation for _, operation, parent in spans if not parent]
    orphans = [operation for _, operation, parent in spans if parent == "?"]
    if orphans:
        raise StepFailed(f"spans without their parent: {orphans}")
    return f"trace {chain}: {len(spans)} spans of {len({service for service, _, _ in spans})} services, root {', '.join(roots)}"


def probe(run: Run) -> str:
    """Run `helm test`."""
    run.release.helm("test", run.release.name)
    said = run.release.kubectl("logs", f"{run.release.full_name}-test")
    return "; ".join(" ".join(line.split()) for line in said.splitlines() if line.startswith(("handled", "market")))


def rest(run: Run) -> str:
    """Leave the default install alone: nothing may scale itself, and every engine stays below half of its target."""
    highest: dict[str, int] = {}
    until = time.monotonic() + run.choices.rest_s
    while time.monotonic() < until:
        for engine in TRADERS:
            replicas, taken = run.release.replicas(engine), run.release.cpu_millicores(engine)
            highest[engine] = max(highest.get(engine, 0), *taken, 0)
            if replicas > 1:
                raise StepFailed(f"{engine} has {replicas} replicas at rest, with {taken} m of CPU")
        time.sleep(5)
    return "one replica each; at most " + ", ".join(f"{engine} {taken}m" for engine, taken in highest.items())


def load(run: Run) -> str:
    """Load 40 symbols until signals has several replicas, hold that, and wait until it has one again."""
    run.deploy(run.choices.quiet_rate, costly=True)
    started = run.deploy(run.choices.load_rate, wait=False, costly=True)
    began = time.monotonic()
    wait_for("signals to scale", PATIENCE_S, lambda: run.release.replicas("signals") > 1)
    several = time.monotonic() - began
    most, until = 0, time.monotonic() + run.choices.load_s
    while time.monotonic() < until:
        most = max(most, run.release.replicas("signals"))
        time.sleep(2)
    gone = time.monotonic()
    run.deploy(run.choices.quiet_rate, wait=False, costly=True)
    wait_for("signals to have one replica again", PATIENCE_S * 2, lambda: len(run.release.pods("signals")) == 1)
    back = time.monotonic() - gone
    run.deploy(run.choices.quiet_rate)
    rate = run.choices.load_rate * run.choices.symbols
    return (
        f"{rate:.0f} snapshots/s of {run.choices.symbols} symbols: several replicas {started + several:.0f} s after the "
        f"change, {most} at most; one again {back:.0f} s after the load had gone"
    )


def kills(run: Run) -> str:
    """Delete every pod in turn, NATS included, each once all are ready again."""
    took: dict[str, float] = {}
    for pod in run.release.pods():
        before = {each.uid for each in run.release.pods()}
        if pod.uid not in before:
            continue  # scaled away meanwhile
        began = time.monotonic()
        run.release.kubectl("delete", "pod", pod.name, "--wait=false")
        wait_for(f"{pod.name} to go", PATIENCE_S, lambda uid=pod.uid: all(p.uid != uid for p in run.release.pods()))  # type: ignore[misc]  # mypy cannot infer a default
        run.ready()
        took[pod.component] = max(took.get(pod.component, 0.0), time.monotonic() - began)
    return f"{len(took)} components; ready again after " + ", ".join(f"{name} {s:.0f} s" for name, s in took.items())


def upgrade(run: Run) -> str:
    """Upgrade to another image under load, watch the market meanwhile, and roll back."""
    tag = run.choices.next_tag
    if not tag:
        raise StepFailed("no other image was named: give --next-tag")
    run.deploy(run.choices.upgrade_rate)
    forth, gap_forth = market_gap(run, lambda: run.deploy(run.choices.upgrade_rate, "--set", f"image.tag={tag}"))
    images = {pod.image for pod in run.release.pods() if pod.component in TRADERS}
    if any(not image.endswith(f":{tag}") for image in images):
        raise StepFailed(f"after the upgrade to {tag} there are pods of {sorted(images)}")

    def rollback() -> float:
        began = time.monotonic()
        run.release.helm("rollback", run.release.name, "--wait", "--timeout", f"{PATIENCE_S * 2:.0f}s")
        run.ready()
        return time.monotonic() - began

    back, gap_back = market_gap(run, rollback)
    images = {pod.image for pod in run.release.pods() if pod.component in TRADERS}
    if any(image.endswith(f":{tag}") for image in images):
        raise StepFailed(f"after the rollback there are pods of {sorted(images)}")
    return (
        f"upgrade {forth:.0f} s, no symbol without a tick for more than {gap_forth:.1f} s; "
        f"rollback {back:.0f} s, {gap_back:.1f} s; at {run.choices.upgrade_rate:g} ticks a second and symbol"
    )


def market_gap(run: Run, change: Callable[[], float]) -> tuple[float, float]:
    """Do something, and return what it returned and the longest seconds that a symbol had no tick meanwhile."""
    after = audit_range(run.release, run.server)[1]
    took = change()
    return took, longest_silence(run.release, run.server, after)


def reinstall(run: Run) -> str:
    """Uninstall, install again under the same name, and go on where the log ended."""
    before = audit_range(run.release, run.server)
    run.release.helm("uninstall", run.release.name, "--wait", "--timeout", "300s")
    wait_for("the pods to go", PATIENCE_S, lambda: not run.release.pods())
    kept = sorted(each["metadata"]["name"] for each in run.release.get("pvc"))
    took = run.deploy(run.choices.quiet_rate, verb="install")
    after = audit_range(run.release, run.server)
    if after[0] != before[0] or after[1] < before[1]:
        raise StepFailed(f"the log had the sequences {before}, and has {after}")
    return f"kept {', '.join(kept)}; ready after {took:.0f} s, the log goes on from sequence {before[1]:,}"


STEPS: dict[str, Callable[[Run], str]] = {
    "install": install,
    "orders": orders,
    "jaeger": jaeger,
    "test": probe,
    "rest": rest,
    "load": load,
    "kills": kills,
    "upgrade": upgrade,
    "reinstall": reinstall,
}
"""What is done to the default install, in this order."""


def counted(run: Run) -> Audit:
    """Wait until every engine has handled what is in the log, and count the whole log."""
    wait_for("the engines to handle the log", PATIENCE_S * 2, lambda: _handled(run), poll_s=3)
    return audit(run.release, run.server)


def _handled(run: Run) -> bool:
    try:
        return waiting(run.release, run.server) < UNDER_WAY
    except (StepFailed, nats.errors.Error, OSError):
        return False  # the server that was asked has just gone
