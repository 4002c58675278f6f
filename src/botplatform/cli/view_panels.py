"""What the live view shows, as rich renderables: pure functions of the live model. Made for 80x24 and larger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple

from rich import box
from rich.console import RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from botplatform.core.events import OrderStatus, Severity, TradingState
from botplatform.engines.monitoring.model import LiveModel, SymbolView
from botplatform.report.chain import chain_tree
from botplatform.report.format import duration, money, price, profit, share
from botplatform.report.render import SIDE_STYLES, chain_view
from botplatform.telemetry.summary import amount
from botplatform.trading.orders import OrderRecord
from botplatform.trading.positions import CONTEXT, Leg

__all__ = ["ViewContext", "live_screen", "progress_line"]

WIDE: Final = 110
"""Columns from which orders and the chain stand side by side."""
STATE_STYLES: Final = {
    TradingState.ACTIVE: "bold green",
    TradingState.REDUCING: "bold yellow",
    TradingState.HALTED: "bold white on red",
}
STATUS_STYLES: Final = {
    OrderStatus.FILLED: "green",
    OrderStatus.REJECTED: "red",
    OrderStatus.DENIED: "red",
    OrderStatus.UNKNOWN: "bold red",
    OrderStatus.CANCELLED: "dim",
    OrderStatus.EXPIRED: "dim",
}
LOUD: Final = frozenset({Severity.WARNING, Severity.ERROR, Severity.CRITICAL})


class ViewContext(NamedTuple):
    """What the view cannot know from events."""

    title: str
    """What runs, for example `demo`."""
    bus: str = ""
    """Where events travel, for example `JetStream at nats://127.0.0.1:4222`."""
    watch: str = ""
    """A command with which a person can watch the events from another terminal."""
    duration_s: float = 0.0
    """Seconds after which the run ends by itself; 0: it does not."""


def live_screen(model: LiveModel, context: ViewContext, elapsed_s: float, width: int, height: int) -> RenderableType:
    """Arrange the whole screen."""
    head = 3 if context.watch else 2
    symbols = min(len(model.symbols), max(1, height // 2 - head - 4)) or 1
    layout = Layout()
    health = Layout(_engines(model, width), name="health", size=1 if width >= 2 * WIDE else 2)
    parts = [
        Layout(_header(model, context, elapsed_s), name="head", size=head),
        Layout(_symbols(model, symbols, width), name="symbols", size=symbols + 5),
        Layout(name="body", ratio=1),
        health,
        Layout(_footer(model, width), name="foot", size=1),
    ]
    layout.split_column(*parts)
    body = height - head - symbols - 5 - (health.size or 1) - 1
    if width >= WIDE:
        left = Layout(name="left", ratio=5)
        problems = min(8, max(3, body // 3))
        left.split_column(
            Layout(_orders(model, body - problems - 3), ratio=1), Layout(_problems(model, problems - 2), size=problems)
        )
        layout["body"].split_row(left, Layout(_chain(model, body - 2), ratio=6))
    else:
        orders = max(3, min(6, body // 2))
        layout["body"].split_column(
            Layout(_orders(model, orders - 3), size=orders), Layout(_chain(model, body - orders - 2), ratio=1)
        )
    return layout


def progress_line(model: LiveModel, elapsed_s: float) -> str:
    """Tell the state in one line, for where there is no terminal."""
    account = model.account
    prices = "  ".join(f"{name} {price(view.price)}" for name, view in list(model.symbols.items())[:4])
    return (
        f"{duration(elapsed_s)}  {model.events:,} events ({model.events_per_s:,.0f}/s)  {prices}  "
        f"orders {sum(model.orders_by_status.values())} ({len(model.orders.open())} open)  "
        f"net {money(_net(model), sign=True)}  equity {money(account.equity)}"
        + ("" if model.trading.state is TradingState.ACTIVE else f"  {model.trading.state}: {model.trading.reason}")
    )


def _net(model: LiveModel) -> Decimal:
    return CONTEXT.subtract(model.account.equity, model.account.starting_balance)


def _clock_time(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%H:%M:%S") if time_ns else "--:--:--"


def _header(model: LiveModel, context: ViewContext, elapsed_s: float) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    trading = model.trading
    state = Text.assemble((f" {trading.state} ", STATE_STYLES[trading.state]))
    if trading.reason:
        state.append(f" {trading.reason}", style="yellow")
    of = f" of {context.duration_s:.0f} s" if context.duration_s else ""
    grid.add_row(
        Text.assemble((context.title, "bold cyan"), ("  ", ""), (context.bus, "dim")),
        Text.assemble((f"{model.events_per_s:,.0f} events/s", "bold"), f"  {elapsed_s:.0f} s{of}"),
    )
    grid.add_row(state, Text(f"{model.events:,} events, market time {_clock_time(model.last_ns)}", style="dim"))
    if context.watch:
        grid.add_row(Text.assemble(("watch: ", "dim"), (context.watch, "green")), "")
    return grid


def _symbols(model: LiveModel, rows: int, width: int) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, expand=True, collapse_padding=True, show_footer=True)
    account, wide = model.account, width >= WIDE
    hidden = len(model.symbols) - rows
    table.add_column("Symbol", "total" + (f" (+{hidden} more)" if hidden > 0 else ""), no_wrap=True)
    table.add_column("Price", justify="right", no_wrap=True)
    table.add_column("Signals", ratio=1, no_wrap=True, overflow="ellipsis")
    for name, style in (("Long", "green"), ("Short", "red")):
        table.add_column(name, justify="right", no_wrap=True, header_style=f"bold {style}")
    table.add_column("Open" if wide else "Ord", str(len(model.orders.open())), justify="right", no_wrap=True)
    if wide:
        table.add_column("Realised", profit(account.realized_pnl), justify="right", no_wrap=True)
        table.add_column("Unrealised", profit(account.unrealized_pnl), justify="right", no_wrap=True)
        table.add_column("Fees", money(account.commission), justify="right", no_wrap=True)
    table.add_column("Profit", profit(_net(model)), justify="right", no_wrap=True, min_width=8)
    for symbol, view in list(model.symbols.items())[:rows]:
        table.add_row(*_symbol_row(model, symbol, view, wide=wide))
    if not model.symbols:
        table.add_row(Text("no market data yet", style="dim italic"))
    return table


def _symbol_row(model: LiveModel, symbol: str, view: SymbolView, *, wide: bool) -> Iterable[RenderableType]:
    long, short = model.account.positions.by_symbol(symbol)
    rises = view.before and view.price > view.before
    style, arrow = ("green", "▲") if rises else ("red", "▼") if view.before else ("", " ")
    yield Text(symbol, style="bold")
    yield Text(f"{price(view.price)} {arrow}", style=style)
    yield _signals(view.signals, view.price)
    yield _leg(long, "green", wide=wide)
    yield _leg(short, "red", wide=wide)
    working = len(model.orders.open(symbol))
    yield Text(str(working), style="bold yellow" if working else "dim")
    realized = CONTEXT.add(long.realized_pnl, short.realized_pnl)
    fees = CONTEXT.add(long.commission, short.commission)
    unrealized = model.account.unrealized_of(symbol)
    if wide:
        yield from (profit(realized), profit(unrealized), money(fees))
    yield profit(CONTEXT.subtract(CONTEXT.add(realized, unrealized), fees))


def _signals(sets: Mapping[str, Mapping[str, float]], market: float) -> Text:
    """Show signal values, those that are not prices first: they say more on a narrow screen."""
    values = [(name, value) for each in sets.values() for name, value in each.items()]
    values.sort(key=lambda item: (bool(market) and abs(item[1] - market) < market / 5, item[0]))
    text = Text(no_wrap=True, overflow="ellipsis")
    for name, value in values:
        text.append(f"{name} ", style="dim")
        text.append(f"{amount(float(f'{value:.4g}')) if abs(value) < 1000 else f'{value:,.0f}'}  ")
    return text if values else Text("warming up", style="dim italic")


def _leg(leg: Leg, style: str, *, wide: bool) -> Text:
    if not leg.quantity:
        return Text("-", style="dim")
    return Text(amount(leg.quantity) + (f" @ {price(leg.avg_px_open)}" if wide else ""), style=style)


def _orders(model: LiveModel, rows: int) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 1))
    for justify in ("left", "left", "left", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    latest = list(model.recent_orders.values())[: -max(rows, 1) - 1 : -1]
    for order in latest:
        table.add_row(*_order_row(order))
    count = sum(model.orders_by_status.values())
    content = table if latest else Text("none yet", style="dim italic")
    return Panel(content, title=f"orders ({count})", title_align="left", border_style="dim", padding=(0, 0))


def _order_row(order: OrderRecord) -> Iterable[RenderableType]:
    does = ("open " if order.opens else "close ") + order.position_side.lower()
    paid = order.avg_px or order.price
    yield Text(_clock_time(order.submitted_ns), style="dim")
    yield order.symbol
    yield Text(does, style=SIDE_STYLES[order.position_side])
    yield amount(order.quantity)
    yield price(paid) if paid else ""
    yield Text(order.status.replace("_", " ").lower(), style=STATUS_STYLES.get(order.status, "yellow"))
    yield Text(order.reason_code or order.strategy, style="dim")


def _chain(model: LiveModel, rows: int) -> RenderableType:
    events = model.chains.latest()
    if not events:
        return Panel(Text("no decision yet", style="dim italic"), title="chain", title_align="left", border_style="dim")
    name = model.chains.latest_id
    limit = max(rows - 1, 1)
    tree = chain_view(chain_tree(events), Text(name, style="dim"), limit=limit if len(events) <= limit else limit - 1)
    title = "chain of the last trade" if model.trades.markers else "chain of the last decision"
    return Panel(tree, title=title, title_align="left", border_style="dim", padding=(0, 0))


def _problems(model: LiveModel, rows: int) -> RenderableType:
    lines: list[Text] = []
    latest: Sequence[tuple[int, str, Text]] = sorted(
        [
            *((each.time_ns, each.severity, Text(f"{each.module}: {each.text}")) for each in model.problems),
            *((each.time_ns, "alert", Text(each.text)) for each in model.alerts),
        ],
        key=lambda item: item[0],
    )
    for time_ns, kind, text in latest[: -rows - 1 : -1]:
        style = "red" if kind in ("error", "critical") else "yellow" if kind == "warning" else "cyan"
        lines.append(Text.assemble((_clock_time(time_ns), "dim"), " ", (kind, style), " ", text))
        lines[-1].no_wrap, lines[-1].overflow = True, "ellipsis"
    content = Text("\n").join(lines) if lines else Text("none", style="dim italic")
    content.no_wrap, content.overflow = True, "ellipsis"
    return Panel(content, title="alerts and problems", title_align="left", border_style="dim", padding=(0, 0))


def _engines(model: LiveModel, width: int) -> RenderableType:
    text = Text(no_wrap=width >= 2 * WIDE, overflow="ellipsis")
    if not model.engines:
        return Text(" engines: no heartbeat yet", style="dim")
    for name, health in sorted(model.engines.items()):
        age_s = max(model.now_ns - health.beat_ns, 0) / 1e9
        colour = "red" if health.stale else "green"
        text.append(" ●", style=colour)
        text.append(f"\u00a0{name}\u00a0")
        text.append(f"{age_s:.0f}s ", style="bold red" if health.stale else "dim")
    return text


def _footer(model: LiveModel, width: int) -> RenderableType:
    account = model.account
    loud = [each for each in model.problems if each.severity in LOUD]
    left = Text.assemble(
        " equity ",
        (money(account.equity), "bold"),
        ("  drawdown ", ""),
        share(account.drawdown),
    )
    if loud and width < WIDE:
        left.append(f"  {loud[-1].module}: {loud[-1].text}", style="red")
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(left, Text("Ctrl-C ends ", style="reverse"))
    return grid
