"""Which way a market goes, with hysteresis, so that a small movement to and fro is no change."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

__all__ = ["NotNegative", "trend_of"]

NotNegative = Annotated[float, Meta(ge=0)]
"""A number that is zero or more."""


def trend_of(fast: float, slow: float, band_bps: float, before: int) -> int:
    """Return 1 (up), -1 (down) or 0 (not known yet), from two averages and the trend before.

    The trend turns only when the averages are apart by more than `band_bps` basis points of the slow one.

    >>> trend_of(100.2, 100.0, 10.0, before=0), trend_of(99.95, 100.0, 10.0, before=1)
    (1, 1)
    """
    gap, band = fast - slow, abs(slow) * band_bps * 1e-4
    if gap > band:
        return 1
    return -1 if gap < -band else before
