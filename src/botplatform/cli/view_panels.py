"""What the live view shows, as rich renderables: pure functions of the live model. Made for 80x24 and larger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from operator import itemgetter
from typing import Final, NamedTuple

import msgspec
from rich import box
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from botplatform.core.events import OrderStatus, Severity, TradingState
from botplatform.engines.monitoring.model import LiveModel, SymbolView
from botplatform.report.chain import ChainNode, chain_tree, offset
from botplatform.report.format import duration, money, price, profit, share
from botplatform.report.render import SIDE_STYLES
from botplatform.telemetry.summary import TYPE_STYLES, amount
from botplatform.trading.orders import OrderRecord
from botplatform.trading.positions import CONTEXT, Leg

__all__ = ["ViewContext", "live_screen", "progress_line"]

WIDE: Final = 110
"""Columns from which orders and the chain stand side by side."""
VERY_WIDE: Final = 150
"""Columns from which profit is shown in its parts."""
WATCH: Final = "watch: "
SLOW_BEAT_S: Final = 5
"""Seconds without a heartbeat from which its age is shown."""
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
    head = 2 + (0 if not context.watch else 1 if len(WATCH + context.watch) <= width else 2)
    symbols = min(len(model.symbols), max(1, height // 2 - head - 3)) or 1
    engines = _engines(model)
    health = 1 if engines.cell_len <= width else 2
    body = max(height - head - (symbols + 3) - health - 1, 4)
    layout = Layout()
    layout.split_column(
        Layout(_header(model, context, elapsed_s), size=head),
        Layout(_symbols(model, symbols, width), size=symbols + 3),
        _wide_body(model, body, width) if width >= WIDE else _narrow_body(model, body),
        Layout(engines, size=health),
        Layout(_footer(model, width), size=1),
    )
    return layout


def _wide_body(model: LiveModel, height: int, width: int) -> Layout:
    """Orders above alerts and problems on the left, the chain on the right."""
    problems = min(10, max(3, height // 3))
    left, right, body = Layout(size=min(max(66, width // 2), 74)), Layout(ratio=1), Layout(ratio=1)
    left.split_column(
        Layout(_panel(*_orders(model, height - problems - 2)), ratio=1),
        Layout(_panel(*_problems(model, problems - 2)), size=problems),
    )
    right.update(_panel(*_chain(model, height - 2)))
    body.split_row(left, right)
    return body


def _narrow_body(model: LiveModel, height: int) -> Layout:
    """Orders above the chain, with a rule above each instead of a frame."""
    orders = max(2, height // 3)
    body = Layout(ratio=1)
    body.split_column(
        Layout(Group(*_ruled(*_orders(model, orders - 1))), size=orders),
        Layout(Group(*_ruled(*_chain(model, height - orders - 1))), ratio=1),
    )
    return body


def _panel(title: str, content: RenderableType) -> Panel:
    return Panel(content, title=title, title_align="left", border_style="dim", padding=(0, 1))


def _ruled(title: str, content: RenderableType) -> tuple[Rule, Padding]:
    return Rule(Text(title, style="dim"), align="left", style="dim"), Padding(content, (0, 1))


def progress_line(model: LiveModel, elapsed_s: float) -> str:
    """Tell the state in one line, for where there is no terminal."""
    account = model.account
    prices = "  ".join(f"{name} {price(view.price)}" for name, view in sorted(model.symbols.items())[:4])
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
    trading = model.trading
    state = Text.assemble((f" {trading.state} ", STATE_STYLES[trading.state]))
    if trading.reason:
        state.append(f" {trading.reason}", style="yellow")
    of = f" of {context.duration_s:.0f} s" if context.duration_s else ""
    lines: list[RenderableType] = [
        _spread(
            Text.assemble((context.title, "bold cyan"), ("  ", ""), (context.bus, "dim")),
            Text.assemble((f"{model.events_per_s:,.0f} events/s", "bold"), f"  {elapsed_s:.0f} s{of}"),
        ),
        _spread(state, Text(f"{model.events:,} events, market time {_clock_time(model.last_ns)}", style="dim")),
    ]
    if context.watch:
        lines.append(Text.assemble((WATCH, "dim"), (context.watch, "green"), overflow="fold"))
    return Group(*lines)


def _spread(left: Text, right: Text) -> Table:
    """Put one text at each end of a line; the left one is cut when they do not fit."""
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(left, right)
    return grid


def _symbols(model: LiveModel, rows: int, width: int) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, expand=True, collapse_padding=True, show_edge=False)
    table.add_column(" Symbol", no_wrap=True)
    table.add_column("Price", justify="right", no_wrap=True)
    table.add_column("Signals", ratio=1, no_wrap=True, overflow="ellipsis")
    for name, style in (("Long", "green"), ("Short", "red")):
        table.add_column(name, justify="right", no_wrap=True, header_style=f"bold {style}")
    table.add_column("Open" if width >= WIDE else "Ord", justify="right", no_wrap=True)
    for name in ("Realised", "Unrealised", "Fees") if width >= VERY_WIDE else ():
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("Profit", justify="right", no_wrap=True, min_width=8)
    for symbol, view in sorted(model.symbols.items())[:rows]:
        table.add_row(*_symbol_row(model, symbol, view, width))
    if not model.symbols:
        table.add_row(Text(" no market data yet", style="dim italic"))
    table.add_row(*_total_row(model, len(model.symbols) - rows, width))
    return table


def _total_row(model: LiveModel, hidden: int, width: int) -> Iterable[RenderableType]:
    account = model.account
    yield Text(" total" + (f" (+{hidden})" if hidden > 0 else ""), style="dim")
    yield from ("", "", "", "")
    yield Text(str(len(model.orders.open())), style="dim")
    if width >= VERY_WIDE:
        yield from (profit(account.realized_pnl), profit(account.unrealized_pnl), money(account.commission))
    yield profit(_net(model))


def _symbol_row(model: LiveModel, symbol: str, view: SymbolView, width: int) -> Iterable[RenderableType]:
    long, short = model.account.positions.by_symbol(symbol)
    rises = view.before and view.price > view.before
    style, arrow = ("green", "▲") if rises else ("red", "▼") if view.before else ("", " ")
    yield Text(f" {symbol}", style="bold")
    yield Text(f"{price(view.price)} {arrow}", style=style)
    yield _signals(view.signals, view.price)
    yield _leg(long, "green", wide=width >= WIDE)
    yield _leg(short, "red", wide=width >= WIDE)
    working = len(model.orders.open(symbol))
    yield Text(str(working), style="bold yellow" if working else "dim")
    realized = CONTEXT.add(long.realized_pnl, short.realized_pnl)
    fees = CONTEXT.add(long.commission, short.commission)
    unrealized = model.account.unrealized_of(symbol)
    if width >= VERY_WIDE:
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


def _orders(model: LiveModel, rows: int) -> tuple[str, RenderableType]:
    table = Table.grid(expand=True, padding=(0, 1))
    for justify in ("left", "left", "left", "right", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    latest = list(model.recent_orders.values())[: -max(rows, 1) - 1 : -1]
    for order in latest:
        table.add_row(*_order_row(order))
    content = table if latest else Text("none yet", style="dim italic")
    return f"orders ({sum(model.orders_by_status.values())})", content


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


def _chain(model: LiveModel, rows: int) -> tuple[str, RenderableType]:
    """Show the chain of the last trade; where it does not fit, first its last order and then less around it."""
    events = model.chains.latest()
    if not events:
        return "chain", Text("no decision yet", style="dim italic")
    nodes = chain_tree(events)
    for less in (_last_branch, _without_states, _orders_only):
        if sum(1 for node in nodes for _ in node.walk()) > rows:
            nodes = tuple(less(nodes))
    lines = [line for node in nodes for line in _chain_lines(node, 0)]
    title = "chain of the last trade" if model.trades.markers else "chain of the last decision"
    return f"{title}  {model.chains.latest_id}", Group(*lines[: max(rows, 1)])


def _last_branch(nodes: Sequence[ChainNode]) -> Iterable[ChainNode]:
    """Keep, of several decisions or orders of one event, only the last one."""
    branches = [node for node in nodes if node.type in ("strategy.decision", "order.submitted")]
    for node in nodes:
        if node not in branches[:-1]:
            yield msgspec.structs.replace(node, effects=tuple(_last_branch(node.effects)))


def _without_states(nodes: Sequence[ChainNode]) -> Iterable[ChainNode]:
    """Leave out what strategies say about themselves along the way."""
    for node in nodes:
        if node.type != "state.updated" or node.source != "strategy":
            yield msgspec.structs.replace(node, effects=tuple(_without_states(node.effects)))


def _orders_only(nodes: Sequence[ChainNode]) -> Iterable[ChainNode]:
    """Keep what led to the order, and what the venue said."""
    for node in nodes:
        if not node.type.startswith(("state.", "notification.", "system.")):
            yield msgspec.structs.replace(node, effects=tuple(_orders_only(node.effects)))


def _chain_lines(node: ChainNode, depth: int) -> Iterable[Text]:
    style = TYPE_STYLES.get(node.type.partition(".")[0], "white")
    yield Text.assemble(
        ("  " * (depth - 1) + "└ " if depth else "", "dim"),
        (node.type, style),
        (f" {offset(node.offset_ns)} ", "dim"),
        node.summary,
        no_wrap=True,
        overflow="ellipsis",
    )
    for effect in node.effects:
        yield from _chain_lines(effect, depth + 1)


def _problems(model: LiveModel, rows: int) -> tuple[str, RenderableType]:
    notes = [(each.time_ns, str(each.severity), f"{each.module}: {each.text}") for each in model.problems]
    notes += [(each.time_ns, "alert", each.text) for each in model.alerts]
    notes.sort(key=itemgetter(0))
    lines = []
    for time_ns, kind, text in notes[: -max(rows, 1) - 1 : -1]:
        style = "red" if kind in ("error", "critical") else "yellow" if kind == "warning" else "cyan"
        line = Text.assemble((_clock_time(time_ns), "dim"), " ", (kind, style), " ", text)
        line.no_wrap, line.overflow = True, "ellipsis"
        lines.append(line)
    return "alerts and problems", Group(*lines) if lines else Text("none", style="dim italic")


def _engines(model: LiveModel) -> Text:
    if not model.engines:
        return Text(" engines: no heartbeat yet", style="dim")
    text = Text()
    for name, health in sorted(model.engines.items()):
        age_s = max(model.now_ns - health.beat_ns, 0) / 1e9
        text.append(" ●\u00a0", style="red" if health.stale else "green")
        text.append(name)
        if health.stale or age_s >= SLOW_BEAT_S:
            text.append(f"\u00a0{age_s:.0f}s", style="bold red" if health.stale else "yellow")
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
    return _spread(left, Text("Ctrl-C ends ", style="reverse"))
