"""The live view of a run: a screen on a terminal, a line every few seconds anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.live import Live

from botplatform.cli.view_panels import ViewContext, live_screen, progress_line
from botplatform.core.seam import Clock
from botplatform.engines.monitoring.model import LiveModel

__all__ = ["LiveView", "ViewContext"]

REFRESH_S: Final = 0.25
LINE_EVERY_S: Final = 5.0


class LiveView:
    """Shows the live model until it is closed; a context manager.

    `model` is asked for the model anew each time. The view draws only when told to, from the thread that folds
    the model, so that it never sees half a change: call `refresh` now and then, or await `run` beside the work.
    On a terminal it takes the whole screen and gives it back at the end; elsewhere it prints the command
    to watch with, and then one line every `line_every_s` seconds (default 5).
    """

    def __init__(
        self,
        model: Callable[[], LiveModel],
        context: ViewContext,
        clock: Clock,
        console: Console | None = None,
        line_every_s: float = LINE_EVERY_S,
    ) -> None:
        self._model = model
        self._context = context
        self._clock = clock
        self._console = console or Console()
        self._line_every_ns = round(line_every_s * 1e9)
        self._start_ns = self._next_line_ns = 0
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(console=self._console, screen=True, auto_refresh=False, redirect_stderr=False)

    def __enter__(self) -> Self:
        """Take the screen."""
        self._start_ns = self._clock.monotonic_ns()
        self._next_line_ns = self._start_ns + self._line_every_ns
        if self._live is not None:
            self._live.__enter__()
            self.refresh()
        elif self._context.watch:
            self._console.print(f"watch: {self._context.watch}", soft_wrap=True, highlight=False, markup=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the screen back, whatever happened."""
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def refresh(self) -> None:
        """Draw the present state; off a terminal, print a line when the time for one has come."""
        now_ns = self._clock.monotonic_ns()
        elapsed_s = (now_ns - self._start_ns) / 1e9
        if self._live is not None:
            size = self._console.size
            screen = live_screen(self._model(), self._context, elapsed_s, size.width, size.height)
            self._live.update(screen, refresh=True)
        elif now_ns >= self._next_line_ns:
            self._next_line_ns = now_ns + self._line_every_ns
            self._console.print(progress_line(self._model(), elapsed_s), soft_wrap=True, highlight=False)

    async def run(self) -> None:
        """Refresh four times a second until cancelled."""
        while True:
            await self._clock.sleep(REFRESH_S)
            self.refresh()
