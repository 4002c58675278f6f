"""The report for a terminal: tables, and the chain of the last trade as a tree. Good from 80 columns on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from botplatform.core.events import PositionSide
from botplatform.report.chain import ChainNode, offset
from botplatform.report.format import duration, money, price, profit, share
from botplatform.report.model import LegRow, Report, Row
from botplatform.telemetry.summary import TYPE_STYLES, amount, utc

__all__ = ["chain_view", "print_report", "report_view"]

SIDE_STYLES: Final = {PositionSide.LONG: "green", PositionSide.SHORT: "red"}


def print_report(report: Report, console: Console) -> None:
    """Write the report to a console."""
    console.print(report_view(report))


def report_view(report: Report) -> RenderableType:
    """Arrange the report for a terminal."""
    parts: list[RenderableType] = [_figures(report)]
    if report.symbols:
        parts += [_rows("Symbol", report.symbols, report.total), _rows("Strategy", report.strategies, None)]
    else:
        parts.append(Text("  Nothing was traded.", style="yellow"))
    if report.open_legs:
        parts.append(_open_legs(report.open_legs))
    parts.append(_facts(report))
    if report.chain:
        name = "The chain of the last trade" if report.total.fills else "The chain of the last decision"
        parts.append(
            Padding(chain_view(report.chain, Text.assemble((name, "bold"), "  ", (report.chain_id, "dim"))), (0, 1))
        )
    return Group(*parts)


def _figures(report: Report) -> Panel:
    total = report.total
    grid = Table.grid(padding=(0, 2), expand=True)
    for ratio, justify in ((4, "left"), (3, "right"), (4, "left"), (5, "right")):
        grid.add_column(ratio=ratio, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # rich's literal
    net = profit(total.net)
    net.stylize("bold")
    fall = f"{money(report.max_drawdown)} ({share(report.max_drawdown_share)})"
    wins = f"{share(total.win_rate)}" + (f" ({total.wins:,} of {total.round_trips:,})" if total.round_trips else "")
    grid.add_row("Realised profit", profit(total.realized_pnl), "Starting balance", money(report.starting_balance))
    grid.add_row("Unrealised profit", profit(total.unrealized_pnl), "Equity", Text(money(report.equity), style="bold"))
    grid.add_row("Fees", profit(-total.fees), "Largest drawdown", fall)
    grid.add_row(Text("Net", style="bold"), net, "Fills / trips", f"{total.fills:,} / {total.round_trips:,}")
    grid.add_row("Turnover", money(total.turnover), "Won", wins)
    return Panel(grid, title=f"[bold]{report.title}[/bold]", border_style="blue", padding=(0, 1))


def _rows(name: str, rows: Sequence[Row], total: Row | None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, collapse_padding=True)
    table.add_column(name, no_wrap=True, min_width=9, ratio=1)
    for title in ("Fills", "Trips", "Won"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("Realised", "Unrealised", "Fees", "Net"):
        table.add_column(title, justify="right", no_wrap=True, min_width=8)
    for row in rows:
        table.add_row(*_cells(row))
    if total is not None and len(rows) > 1:
        table.add_section()
        table.add_row(*_cells(total), style="bold")
    return table


def _cells(row: Row) -> Iterable[RenderableType]:
    won = "-" if row.win_rate is None else f"{row.win_rate * 100:.0f} %"
    yield from (row.name, f"{row.fills:,}", f"{row.round_trips:,}", won)
    yield from (profit(row.realized_pnl), profit(row.unrealized_pnl), money(row.fees), profit(row.net))


def _open_legs(legs: Sequence[LegRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, expand=True, title="Still open", title_justify="left", title_style="bold")
    for title in ("Symbol", "Strategy", "Leg"):
        table.add_column(title, no_wrap=True)
    for title in ("Quantity", "Opened at", "Mark", "Profit"):
        table.add_column(title, justify="right", no_wrap=True)
    for leg in legs:
        table.add_row(
            leg.symbol,
            leg.strategy,
            Text(leg.side, style=SIDE_STYLES[leg.side]),
            amount(leg.quantity),
            price(leg.avg_px_open),
            price(leg.mark),
            profit(leg.unrealized_pnl),
        )
    return table


def _facts(report: Report) -> Padding:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    statuses = ", ".join(
        f"{count:,} {status.replace('_', ' ').lower()}" for status, count in report.orders_by_status.items()
    )
    grid.add_row("Orders", f"{report.orders:,}" + (f": {statuses}" if statuses else ""))
    if report.prices_and_fees:
        grid.add_row("Prices, fees", report.prices_and_fees)
    if report.started_ns:
        span = f"{utc(report.started_ns)} to {utc(report.ended_ns)} UTC ({duration(report.duration_s)})"
        grid.add_row("Market time", span)
    events = f"{report.events:,}"
    if report.wall_s:
        events += f" in {duration(report.wall_s)}: {report.events / report.wall_s:,.0f} events/s"
    grid.add_row("Events", events)
    if report.problems:
        grid.add_row("Problems", Text(f"{report.problems} warnings and errors, the latest:", style="red"))
        for text in report.last_problems:
            grid.add_row("", Text(text, overflow="fold"))
    return Padding(grid, (0, 1, 1, 1))


def chain_view(roots: Sequence[ChainNode], title: Text) -> Tree:
    """Arrange a chain as a tree, each event under its cause."""
    tree = Tree(title, guide_style="dim")
    _grow(tree, roots)
    return tree


def _grow(tree: Tree, nodes: Iterable[ChainNode]) -> None:
    for node in nodes:
        style = TYPE_STYLES.get(node.type.partition(".")[0], "white")
        label = Text.assemble((node.type, style), "  ", (offset(node.offset_ns), "dim"), "  ", node.summary)
        label.append(f"  {node.source}", style="dim italic")
        _grow(tree.add(label), node.effects)
