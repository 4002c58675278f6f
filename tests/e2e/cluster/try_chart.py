"""Try the chart on a real cluster, step by step, and count what was lost.

It is run as `python tests/e2e/cluster/try_chart.py --help`.
It needs a cluster, kubectl and helm, the images that the chart's values name, and this checkout installed
(`pip install --editable '.[dev]'`). Every step is followed by an audit of the log from the first event on; the last
line is 0 only when every step passed and nothing was lost, doubled or out of order.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nats.errors
from kube import Release, StepFailed
from scenarios import SCENARIOS
from steps import Choices, Run, counted
from watch import AUDITED, Audit

COLUMNS = 12
LOST = (StepFailed, OSError, TimeoutError, nats.errors.Error)
"""What ends a step: it did not do what it should, or the server that it asked went away."""
CHART = Path(__file__).parents[3] / "charts" / "botplatform"


@dataclass(frozen=True)
class Outcome:
    """What came of one step."""

    name: str
    step: Callable[[Run], str]
    passed: bool
    seconds: float
    detail: str
    audit: Audit | None

    def row(self) -> str:
        """Return a row of the table."""
        cells = [self.name, "passed" if self.passed else "FAILED", f"{self.seconds:.0f}"]
        if self.audit is not None:
            counts = self.audit.counts
            cells += [f"{self.audit.events:,}", *(str(counts[name]) for name in AUDITED)]
            cells += [
                f"{self.audit.submitted:,}",
                f"{self.audit.stopped:,}",
                f"{self.audit.taken:,}",
                str(counts["twice at the venue"]),
            ]
        return f"| {' | '.join(cells + ['-'] * (COLUMNS - len(cells)))} |"


def main() -> int:
    """Do the steps, print what they measured, and return 0 when all went well."""
    chosen = arguments()
    release = Release(
        chosen.release,
        chosen.namespace,
        chosen.chart,
        tuple(shlex.split(chosen.kubectl)),
        tuple(shlex.split(chosen.helm)),
    )
    choices = Choices(
        symbols=chosen.symbols,
        quiet_rate=chosen.quiet_rate,
        load_rate=chosen.load_rate,
        load_target=chosen.load_target,
        load_s=chosen.load_seconds,
        signal_rounds=chosen.signal_rounds,
        rest_s=chosen.rest_seconds,
        next_tag=chosen.next_tag,
        more=tuple(part for each in chosen.set for part in ("--set", each)),
    )
    scenario = SCENARIOS[chosen.scenario]
    unknown = [name for name in chosen.steps if name not in scenario.steps]
    if unknown:
        sys.exit(f"{chosen.scenario} has no step {', '.join(unknown)}: it has {', '.join(scenario.steps)}")
    run, outcomes = Run(release, choices, scenario.server, scenario.values), list[Outcome]()
    for name in chosen.steps or scenario.steps:
        print(f"{time.strftime('%H:%M:%S')} {name}: {scenario.steps[name].__doc__}", flush=True)
        outcomes.append(do(run, name, scenario.steps[name]))
        print(f"{time.strftime('%H:%M:%S')} {name}: {outcomes[-1].detail}", flush=True)
        if not outcomes[-1].passed and not chosen.go_on:
            break
    text = report(outcomes)
    print(text)
    if chosen.output:
        chosen.output.write_text(text)
    return 0 if all(each.passed for each in outcomes) else 1


def do(run: Run, name: str, step: Callable[[Run], str]) -> Outcome:
    """Do one step, and audit the log if there is one."""
    began = time.monotonic()
    try:
        detail, passed = step(run), True
    except LOST as e:
        detail, passed = f"{type(e).__name__}: {e}", False
    seconds = time.monotonic() - began
    if passed and not run.release.installed():
        return Outcome(name, step, True, seconds, detail, None)
    try:
        found = counted(run)
    except LOST as e:
        return Outcome(name, step, False, seconds, f"{detail}; no audit: {e}", None)
    return Outcome(name, step, passed and found.clean, seconds, f"{detail}\n  audit: {found}", found)


def report(outcomes: list[Outcome]) -> str:
    """Return the table and what each step measured, as Markdown."""
    lines = [
        "| step | result | seconds | events audited | missing | doubled | out of order | without a cause | orders submitted | stopped before the venue | in its book then | there twice |",
        "|" + " --- |" * COLUMNS,
        *(each.row() for each in outcomes),
        "",
        *(f"- **{each.name}**: {each.step.__doc__} {each.detail.splitlines()[0]}." for each in outcomes),
    ]
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("steps", nargs="*", help="which steps, in this order; default: all of the scenario")
    parser.add_argument(
        "--scenario", default="default", choices=SCENARIOS, help="what to install (default: %(default)s)"
    )
    parser.add_argument("--release", default="botplatform", help="name of the release (default: %(default)s)")
    parser.add_argument("--namespace", default="default", help="namespace of the release (default: %(default)s)")
    parser.add_argument("--chart", default=str(CHART), help="the chart (default: that of this checkout)")
    parser.add_argument("--kubectl", default="kubectl", help="command for kubectl (default: %(default)s)")
    parser.add_argument("--helm", default="helm", help="command for helm (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="value for the chart")
    parser.add_argument("--next-tag", default="", help="tag of another image, for the upgrade")
    parser.add_argument("--symbols", type=int, default=Choices.symbols, help="symbols under load (%(default)s)")
    parser.add_argument(
        "--quiet-rate", type=float, default=Choices.quiet_rate, help="ticks a second and symbol (%(default)s)"
    )
    parser.add_argument("--load-rate", type=float, default=Choices.load_rate, help="the same under load (%(default)s)")
    parser.add_argument(
        "--load-target",
        type=int,
        default=Choices.load_target,
        help="CPU target of signals in percent (that of the chart)",
    )
    parser.add_argument(
        "--signal-rounds",
        type=int,
        default=Choices.signal_rounds,
        help="rounds of a loop for each snapshot, in one more signal under load (%(default)s)",
    )
    parser.add_argument(
        "--load-seconds", type=float, default=Choices.load_s, help="how long the load lasts (%(default)s)"
    )
    parser.add_argument(
        "--rest-seconds", type=float, default=Choices.rest_s, help="how long to watch the rest (%(default)s)"
    )
    parser.add_argument("--go-on", action="store_true", help="do the next steps after one that failed")
    parser.add_argument("--output", type=Path, help="file for the report, as Markdown")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
