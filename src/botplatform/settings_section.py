"""What every group of settings is made of."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Money", "Section", "Share", "Symbol"]

Money = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Symbol = Annotated[str, Field(pattern=r"^[!-)+\-/-=?-~]{1,64}$")]


class Section(BaseModel):
    """A group of settings: frozen, and no unknown keys.

    The docstring below a setting is its description, which `botplatform.docs` reads: at each start it would take longer
    than everything else of the settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
