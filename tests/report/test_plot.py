"""The picture of a run: it is written, it is an image, and what cannot be written is said."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from botplatform.engines.monitoring import LiveModel
from botplatform.errors import MissingExtra, SettingsError, StoreError
from botplatform.report.plot import check_target, plot_run
from botplatform.testing import fill, market

mpl = pytest.importorskip("matplotlib")


def a_run(ticks: int, symbols: tuple[str, ...] = ("BTCUSDT",), trades: int = 4) -> LiveModel:
    model = LiveModel(Decimal(1000))
    for number in range(ticks):
        for symbol in symbols:
            model.apply(market(symbol, 100 + 10 * math.sin(number / 9), at_s=60.0 * number))
        if number < trades:
            opens, long = number % 2 == 0, number % 4 < 2
            model.apply(
                fill(
                    101,
                    1,
                    order_id=f"o{number}",
                    trade_id=f"t{number}",
                    symbol=symbols[0],
                    side="BUY" if opens is long else "SELL",
                    position_side="LONG" if long else "SHORT",
                    at_s=60.0 * number + 1,
                )
            )
    return model


def size_of(path: Path) -> tuple[int, int]:
    from matplotlib.image import imread

    height, width = imread(path).shape[:2]
    return width, height


@pytest.mark.parametrize(
    "model",
    [a_run(0), a_run(1, trades=0), a_run(2, trades=1), a_run(300, ("A", "B", "C")), a_run(20_000, trades=700)],
    ids=["no data", "one tick", "two ticks", "three symbols", "a long run"],
)
def test_any_run_can_be_drawn(model: LiveModel, tmp_path: Path) -> None:
    target = tmp_path / "run.png"
    plot_run(model, target, title="A run")
    assert size_of(target) == (1600, 1050)


def test_an_svg_says_what_a_png_shows_and_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = tmp_path / "one.svg", tmp_path / "two.SVG"
    with mpl.rc_context({"svg.fonttype": "none"}):
        plot_run(a_run(50), first, title="A run of mine")
        plot_run(a_run(50), second, title="A run of mine")
    assert ET.fromstring(first.read_text()).tag.endswith("svg")
    text = first.read_text()
    for words in ("A run of mine", "open long (1)", "close long (1)", "open short (1)", "drawdown", "equity"):
        assert words in text
    assert first.read_bytes() == second.read_bytes()


def test_a_picture_that_cannot_show_every_fill_says_so(tmp_path: Path) -> None:
    target = tmp_path / "run.svg"
    with mpl.rc_context({"svg.fonttype": "none"}):
        plot_run(a_run(5_100, trades=5_050), target)
    assert "the last 5,000 of 5,050 fills" in target.read_text()


@pytest.mark.parametrize("name", ["run.gif", "run", "run.txt"])
def test_an_ending_that_is_no_picture_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\.png, \.svg"):
        check_target(tmp_path / name)


def test_a_folder_that_does_not_exist_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="folder that exists"):
        check_target(tmp_path / "missing" / "run.png")


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "folder.png"])
def test_a_file_that_cannot_be_written_is_one_sentence(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    target = tmp_path / name
    with pytest.raises(StoreError, match="cannot be written"):
        plot_run(a_run(3), target)


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("botplatform.report.plot.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"botplatform\[plot\]"):
        plot_run(a_run(3), tmp_path / "run.png")
