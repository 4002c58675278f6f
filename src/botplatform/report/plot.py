"""The picture of a run: price with every trade, equity, and drawdown, one above the other on one time axis."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from botplatform.core.events import PositionSide
from botplatform.engines.monitoring.curve import EquityPoint
from botplatform.engines.monitoring.model import LiveModel
from botplatform.engines.monitoring.trades import TradeMarker
from botplatform.errors import MissingExtra, SettingsError, StoreError
from botplatform.report.format import money, profit, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FORMATS", "check_target", "plot_run"]

FORMATS: Final = (".png", ".svg", ".pdf")
"""Endings of file names that a picture can have."""

INK: Final = "#1f2933"
GRID: Final = "#e4e7eb"
GREEN: Final = "#0a8754"
RED: Final = "#c81d4e"
BLUE: Final = "#2f5d9b"
COLOURS: Final = ("#2f5d9b", "#d98324", "#6d4ba0", "#168a91", "#8c564b", "#6b7280", "#b0509b", "#7a8b1e")
"""Colours of symbols, where there are several."""
MARKS: Final = {
    (PositionSide.LONG, True): ("^", "open long", GREEN),
    (PositionSide.LONG, False): ("v", "close long", GREEN),
    (PositionSide.SHORT, True): ("v", "open short", RED),
    (PositionSide.SHORT, False): ("^", "close short", RED),
}
"""Up is a buy, down a sale; green is the long leg, red the short one; full opens, hollow closes."""
MAX_SYMBOLS: Final = len(COLOURS)


def check_target(path: Path) -> None:
    """Refuse, before a long run, what `plot_run` would refuse after it: an ending, a missing folder, no matplotlib."""
    if path.suffix.lower() not in FORMATS:
        raise SettingsError(
            f"the picture {path} has the ending {path.suffix or 'of nothing'!r}: give one of {', '.join(FORMATS)}"
        )
    try:
        fits = path.absolute().parent.is_dir() and not path.is_dir()
    except OSError:  # a name that is too long, or a folder that may not be read
        fits = False
    if not fits:
        raise StoreError(f"the picture {path} cannot be written: it has to be a file in a folder that exists")
    if find_spec("matplotlib") is None:
        raise MissingExtra("a picture needs matplotlib: pip install 'botplatform[plot]'")


def plot_run(model: LiveModel, path: Path, *, title: str = "") -> None:
    """Draw a run into a file, PNG, SVG or PDF by its ending; an existing file is replaced.

    Several symbols share the price panel as changes since their first price. Raises `MissingExtra` without
    matplotlib, `SettingsError` for another ending, and `StoreError` when the file cannot be written.
    """
    check_target(path)
    import matplotlib as mpl  # noqa: PLC0415  # an extra, and slow to import
    from matplotlib.figure import Figure  # noqa: PLC0415  # the same

    style: Any = {
        "font.size": 9.5,
        "axes.edgecolor": "#9aa5b1",
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "svg.hashsalt": "botplatform",
        "path.simplify_threshold": 0.3,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(12.8, 8.4), layout="constrained", facecolor="white")
        _draw(figure, model, title)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        try:
            figure.savefig(path, dpi=125, metadata=metadata)
        except OSError as e:
            raise StoreError(f"the picture {path} cannot be written: {e.strerror or e}; choose another place") from e


def _draw(figure: Figure, model: LiveModel, title: str) -> None:
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=(3.2, 1.5, 1))
    for axes in (upper, middle, lower):
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    _prices(upper, model)
    points = model.equity.points
    _equity(middle, points, model.account.starting_balance)
    _drawdown(lower, points, model)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    figure.align_ylabels()
    if points:
        _time_axis(lower)


def _time_axis(axes: Axes) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter  # noqa: PLC0415  # an extra

    locator = AutoDateLocator(minticks=5, maxticks=11)  # type: ignore[no-untyped-call]  # matplotlib is typed in part
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]  # the same
    axes.set_xlabel("UTC")


def _times(nanoseconds: Sequence[int]) -> Any:
    from numpy import array  # noqa: PLC0415  # comes with matplotlib

    return array(nanoseconds, dtype="datetime64[ns]")


def _prices(axes: Axes, model: LiveModel) -> None:
    """Draw the market, and every fill on it."""
    shown = list(model.symbols.items())[:MAX_SYMBOLS]
    alone = len(shown) == 1
    for (symbol, view), colour in zip(shown, COLOURS, strict=False):
        first = view.curve.prices[0] if view.curve.prices else 0.0
        scale = (0.0, 1.0) if alone or not first else (first, 100 / first)
        heights = [(price - scale[0]) * scale[1] for price in view.curve.prices]
        axes.plot(
            _times(view.curve.times_ns),
            heights,
            color=BLUE if alone else colour,
            linewidth=1.0,
            alpha=0.9,
            label=symbol,
            marker="." if len(heights) < 3 else "",
        )
        _markers(axes, [each for each in model.trades.markers if each.symbol == symbol], scale)
    axes.set_ylabel("price" if alone else "change since the start, %")
    if alone:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    if shown:
        _legend(axes, model)
    else:
        axes.text(0.5, 0.5, "no market data", ha="center", transform=axes.transAxes)


def _markers(axes: Axes, markers: Sequence[TradeMarker], scale: tuple[float, float]) -> None:
    size = 70 if len(markers) <= 60 else 34 if len(markers) <= 400 else 14 if len(markers) <= 1500 else 7
    for (side, opens), (shape, _, colour) in MARKS.items():
        chosen = [each for each in markers if each.side is side and each.opens is opens]
        if chosen:
            axes.scatter(
                _times([each.time_ns for each in chosen]),
                [(float(each.price) - scale[0]) * scale[1] for each in chosen],
                s=size,
                marker=shape,
                facecolors=colour if opens else "white",
                edgecolors=colour,
                linewidths=1.1 if size > 20 else 0.7 if size > 10 else 0.45,
                alpha=0.95 if size > 20 else 0.75 if size > 10 else 0.5,
                zorder=3 if opens else 4,
            )


def _legend(axes: Axes, model: LiveModel) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415  # an extra

    handles, _ = axes.get_legend_handles_labels()
    for (side, opens), (shape, text, colour) in MARKS.items():
        count = sum(1 for each in model.trades.markers if each.side is side and each.opens is opens)
        if count:
            face = colour if opens else "white"
            handles.append(
                Line2D(
                    [],
                    [],
                    linestyle="",
                    marker=shape,
                    color=colour,
                    markerfacecolor=face,
                    markersize=7,
                    label=f"{text} ({count})",
                )
            )
    fills = sum(each.fills for each in model.trades.legs.values())
    if fills > len(model.trades.markers):
        handles.append(Line2D([], [], linestyle="", label=f"the last {len(model.trades.markers):,} of {fills:,} fills"))
    axes.legend(
        handles=handles,
        ncols=len(handles),
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        handletextpad=0.4,
        columnspacing=1.2,
        borderaxespad=0.2,
    )


def _equity(axes: Axes, points: Sequence[EquityPoint], start: Decimal) -> None:
    axes.set_ylabel("equity")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    if not points:
        return
    times, values = _times([each.time_ns for each in points]), [float(each.equity) for each in points]
    base = float(start)
    axes.axhline(base, color="#9aa5b1", linewidth=0.9, linestyle=(0, (4, 3)))
    axes.plot(times, values, color=INK, linewidth=1.1, marker="." if len(points) < 3 else "")
    for colour, where in ((GREEN, [each >= base for each in values]), (RED, [each <= base for each in values])):
        axes.fill_between(times, values, base, where=where, interpolate=True, color=colour, alpha=0.14, linewidth=0)
    last = points[-1].equity
    net = profit(last - start).plain
    axes.set_title(f"equity {money(last)}, net {net}", loc="right", fontsize=9.5, pad=3)


def _drawdown(axes: Axes, points: Sequence[EquityPoint], model: LiveModel) -> None:
    axes.set_ylabel("drawdown, %")
    if not points:
        return
    times = _times([each.time_ns for each in points])
    falls = [-100 * float(each.drawdown) for each in points]
    axes.fill_between(times, falls, 0, color=RED, alpha=0.22, linewidth=0)
    axes.plot(times, falls, color=RED, linewidth=0.9)
    axes.set_ylim(top=0, bottom=min(falls) * 1.15 or -1)
    account = model.account
    text = f"largest drawdown {share(account.max_drawdown_share)} ({money(account.max_drawdown)})"
    axes.set_title(text, loc="right", fontsize=9.5, pad=3)
    if account.max_drawdown:
        deepest = min(range(len(falls)), key=falls.__getitem__)
        axes.scatter(times[deepest : deepest + 1], falls[deepest : deepest + 1], s=22, color=RED, zorder=3)
