"""Switches tracing on where it is asked for, by the settings or the standard `OTEL_…` variables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from functools import partial
from importlib.util import find_spec
from typing import Final, NamedTuple

from botplatform.core.seam import Clock
from botplatform.errors import MissingExtra, SettingsError
from botplatform.settings_tracing import TracingSettings
from botplatform.telemetry.export import Sends, SpanQueue
from botplatform.telemetry.sampling import Sampler
from botplatform.telemetry.tracing import Tracing

__all__ = ["OpenTracing", "dropped_spans", "open_tracing"]

DEFAULT_RATIO: Final = 0.01
PROTOCOLS: Final = ("http/protobuf", "grpc")
EXPORTERS: Final = ("otlp", "console", "none")
_queues: list[SpanQueue] = []


class OpenTracing(NamedTuple):
    """Tracing that is on, and the queue of its spans."""

    tracing: Tracing
    queue: SpanQueue
    stop_within_s: float

    def flush(self, within_s: float = 1.0) -> bool:
        """Send what waits; tell whether that was done in time."""
        return self.queue.flush(within_s)

    def close(self) -> None:
        """Send what waits, within a bound, and end."""
        self.queue.close(self.stop_within_s)


def dropped_spans() -> int:
    """Return how many spans of this process were dropped or lost so far; 0 where tracing is off."""
    return sum(queue.dropped for queue in _queues)


def open_tracing(
    settings: TracingSettings,
    environ: Mapping[str, str],
    clock: Clock,
    *,
    engines: Collection[str],
    running: Collection[str],
    instance: str,
    system: str = "nats",
) -> OpenTracing | None:
    """Switch tracing on; None where it is not asked for.

    `engines` are the names of all, `running` those of this process. Raises `SettingsError` for variables that make no
    sense, and `MissingExtra` for gRPC without its extra.
    """
    kinds = _exporters(settings, environ)
    if not kinds:
        return None
    ratio = _ratio(settings, environ)
    if ratio is None:
        return None
    protocol = settings.protocol or _first(environ, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = protocol or PROTOCOLS[0]
    if protocol not in PROTOCOLS:
        raise SettingsError(
            f"spans travel by {' or '.join(PROTOCOLS)}, not {protocol!r}: see OTEL_EXPORTER_OTLP_PROTOCOL"
        )
    if protocol == "grpc" and "otlp" in kinds and not _has_grpc():
        raise MissingExtra("traces over gRPC need the extra otlp-grpc: pip install 'botplatform[otlp-grpc]'")
    make = partial(_sender, kinds, protocol, settings.endpoint, dict(environ), system, instance, len(set(running)) == 1)
    queue = SpanQueue(make, limit=settings.queue, flush_s=settings.flush_s, clock=clock)
    _queues.append(queue)
    tracing = Tracing(Sampler(ratio), queue.put, clock, engines=engines, headers=system == "nats", nest=_nesting())
    return OpenTracing(tracing, queue, settings.stop_within_s)


def _exporters(settings: TracingSettings, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the kinds of exporters to use; none where tracing is off."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    asked = environ.get("OTEL_TRACES_EXPORTER", "").strip()
    kinds = tuple(each.strip() for each in asked.split(",") if each.strip())
    for kind in kinds:
        if kind not in EXPORTERS:
            raise SettingsError(f"OTEL_TRACES_EXPORTER has {kind!r}: known are {', '.join(EXPORTERS)}")
    endpoint = settings.endpoint or _first(environ, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    enabled = bool(endpoint or kinds) if settings.enabled is None else settings.enabled
    return tuple(kind for kind in kinds or ("otlp",) if kind != "none") if enabled else ()


def _ratio(settings: TracingSettings, environ: Mapping[str, str]) -> float | None:
    """Return the share of ticks; None where the standard variables say that nothing is traced."""
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").strip().removeprefix("parentbased_")
    if settings.ratio is not None:
        return settings.ratio
    if sampler == "always_off":
        return None
    if sampler == "always_on":
        return 1.0
    given = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    if not given:
        return DEFAULT_RATIO
    try:
        ratio = float(given)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise SettingsError(f"OTEL_TRACES_SAMPLER_ARG is {given!r}: it has to be a share from 0 to 1")
    return ratio


def _first(environ: Mapping[str, str], *names: str) -> str:
    return next((environ[name].strip() for name in names if environ.get(name, "").strip()), "")


def _has_grpc() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.grpc") is not None
    except ModuleNotFoundError:
        return False


def _sender(  # noqa: PLR0917  # private, called once
    kinds: tuple[str, ...],
    protocol: str,
    endpoint: str,
    environ: Mapping[str, str],
    system: str,
    instance: str,
    alone: bool,  # noqa: FBT001  # private, called once
) -> Sends:
    from botplatform.telemetry.otlp import OtelSender, make_exporter  # noqa: PLC0415  # only where tracing is on

    exporters = [make_exporter(kind, protocol, endpoint, environ) for kind in kinds]
    name = environ.get("OTEL_SERVICE_NAME", "")
    return OtelSender(exporters, system=system, instance=instance, alone=alone, name=name)


def _nesting() -> Callable[[str, str], AbstractContextManager[object]]:
    """Return what makes a span current, so that the spans of other people's instrumentation come under it."""
    from botplatform.telemetry.nesting import Nested  # noqa: PLC0415  # only where tracing is on

    return Nested
