"""`botplatform audit`: count what is missing, doubled, out of order or without a cause in the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from botplatform.audit import AuditReport, Kind, Rule, audit_log
from botplatform.audit.report import RULES
from botplatform.cli.events import connected
from botplatform.cli.invocation import invocation_of
from botplatform.errors import BusError
from botplatform.settings import Settings

__all__ = ["audit"]

UNCLEAN: Final = 1
"""Exit code when something was found."""


def audit(
    ctx: typer.Context,
    *,
    after: Annotated[int, typer.Option(min=0, help="Begin behind this sequence of the log.")] = 0,
    until: Annotated[int, typer.Option(min=0, help="End with this sequence; 0 for the present end.")] = 0,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds before the end in which what is unanswered still waits.")
    ] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Read the log by sequence, and count what is missing, doubled, out of order or without a cause.

    No engine notices it. Every snapshot needs a signal.snapshot of each signal set of the settings, every action of a
    decision its order. The exit code is 0 only when nothing was found; what is counted apart does not matter.
    """
    settings = invocation_of(ctx).settings()
    if until and until <= after:
        raise BusError(f"--until {until} does not lie behind --after {after}: nothing would be read")
    report, unreadable = asyncio.run(_audited(settings, after, until or None, grace))
    if as_json:
        typer.echo(json.dumps({**report.to_dict(), "unreadable": unreadable}, ensure_ascii=False))
    else:
        _show(report, unreadable)
    if unreadable or not report.clean:
        raise typer.Exit(UNCLEAN)


async def _audited(settings: Settings, after: int, until: int | None, grace_s: float) -> tuple[AuditReport, int]:
    """Return the report, and how many messages are no events."""
    sets = [each.name for each in settings.signals]
    async with await connected(settings) as bus:
        gone = (await bus.trimmed()).sequence
        if until and until <= gone:
            raise BusError(f"--until {until}: the log was trimmed up to {gone}, so there is nothing left to audit")
        if gone > after:
            typer.echo(f"botplatform: the log was trimmed up to {gone}: only what came later is audited", err=True)
        report = await audit_log(bus, signal_sets=sets, after=after, until=until, grace_s=grace_s)
        return report, bus.counters.undecodable


def _show(report: AuditReport, unreadable: int) -> None:
    console = Console()
    table = Table(title=f"{report.events:,} events, {report.first_sequence} to {report.last_sequence}")
    table.add_column("rule", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("what one is", style="dim")
    for kind in Kind:
        count = report.count(kind)
        table.add_row(Text(kind.value, style="bold"), Text(f"{count:,}", style=_style(kind, count)), "")
        for rule, (of, words) in RULES.items():
            if of is kind and report.count(rule):
                table.add_row(f"  {rule.value}", f"{report.count(rule):,}", words)
        table.add_section()
    console.print(table)
    for line in _examples(report):
        console.print(line, highlight=False, soft_wrap=True)
    if unreadable:
        console.print(f"{unreadable:,} messages in the log are no events", style="red")
    clean = report.clean and not unreadable
    verdict = "nothing is missing, doubled, out of order or without a cause" if clean else "the log is not clean"
    console.print(verdict, style="green" if clean else "bold red")


def _style(kind: Kind, count: int) -> str:
    return "dim" if not count else "yellow" if kind is Kind.APART else "bold red"


def _examples(report: AuditReport) -> Iterator[Text]:
    for rule, tally in report.tallies.items():
        yield Text(_heading(rule, tally.count, len(tally.examples)), style="bold")
        for sequence, event_id, sentence in tally.examples:
            yield Text.assemble(f"  {sequence:>10}  ", (event_id or "-", "dim"), f"  {sentence}")


def _heading(rule: Rule, count: int, shown: int) -> str:
    return f"{rule.value}:" if count <= shown else f"{rule.value}, for example:"
