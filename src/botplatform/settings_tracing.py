"""The settings of tracing; the standard `OTEL_…` variables count as well."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from botplatform.settings_section import Section

__all__ = ["TracingSettings"]


class TracingSettings(Section):
    """Traces by OpenTelemetry. What is not given here is taken from the standard `OTEL_…` variables."""

    enabled: bool | None = None
    """Whether chains are traced; null: where an endpoint is given, here or by `OTEL_EXPORTER_OTLP_ENDPOINT`. Default: null."""
    endpoint: str = Field("", max_length=1024)
    """Address of the collector, for example `http://jaeger:4318`; empty: `OTEL_EXPORTER_OTLP_ENDPOINT`. Default: empty."""
    protocol: Literal["", "http/protobuf", "grpc"] = ""
    """How spans travel; `grpc` needs the extra `otlp-grpc`. Empty: `OTEL_EXPORTER_OTLP_PROTOCOL`, or `http/protobuf`."""
    ratio: float | None = Field(None, ge=0, le=1)
    """Share of the ticks whose chain is traced from its beginning; everything from the decision on always is.
    Null: `OTEL_TRACES_SAMPLER_ARG`, or 0.01. Default: null."""
    queue: int = Field(32_768, ge=64, le=10_000_000)
    """Spans that may wait to be sent; what comes then is dropped and counted. Default: 32768."""
    flush_s: float = Field(0.5, gt=0, le=60)
    """Seconds until spans are sent. Default: 0.5."""
    stop_within_s: float = Field(3.0, ge=0, le=20)
    """Seconds at most that the end of a process waits for the last spans. Default: 3."""
    ui_url: str = Field("", max_length=1024, pattern=r"^(https?://[^\s]+)?$")
    """Address of Jaeger's pages, for `botplatform trace` to link to, for example `http://jaeger:16686`. Default: none."""
