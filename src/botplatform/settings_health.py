"""The settings of what each process tells a cluster about itself."""

from __future__ import annotations

from pydantic import Field

from botplatform.settings_section import Section

__all__ = ["HealthSettings"]


class HealthSettings(Section):
    """What each process tells a cluster about itself over HTTP: `/livez`, `/readyz`, `/startupz`, `/metrics`, `/lag`."""

    port: int = Field(0, ge=0, le=65_535)
    """Port to serve on; 0 serves nothing. Default: 0."""
    host: str = Field("127.0.0.1", min_length=1, max_length=255)
    """Address to serve on; in a cluster, 0.0.0.0 or ::. Default: 127.0.0.1."""
    lag_timeout_s: float = Field(2.0, gt=0, le=60)
    """Seconds in which the log has to say how much is pending. Default: 2."""
