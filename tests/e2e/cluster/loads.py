"""Values that put a load on the platform: a market of many symbols, and a signal that is worth scaling for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

MODULE = """
from botplatform.core.events import MarketEvent
from botplatform.engines.signals import Signal


class Costly(Signal):
    \"\"\"Take some time for each snapshot.\"\"\"

    rounds: int = 1

    def update(self, snapshot: MarketEvent) -> float | None:
        for _ in range(self.rounds):
            pass
        return 0.0
"""
PLUGIN = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "costly-signal"},
    "data": {"costly.py": MODULE},
}
DEFAULT_SIGNALS = (
    {"kind": "ema", "name": "ema_fast", "parameters": {"period": 12}},
    {"kind": "ema", "name": "ema_slow", "parameters": {"period": 26}},
    {"kind": "rsi", "name": "rsi", "parameters": {"period": 14}},
    {"kind": "cvd", "name": "cvd"},
)


@dataclass(frozen=True)
class Market:
    """What a market is to be like."""

    symbols: int
    rate: float
    """Snapshots a second and symbol."""
    signal_rounds: int = 0
    """Rounds of a loop for each snapshot, in a signal beside those of the default; 0: there is none."""
    target: int = 0
    """Share in percent of the requested CPU that signals should use; 0: what the chart says."""

    def values(self) -> str:
        """Return values for the chart; scaling down is quick, so that it can be waited for."""
        config: dict[str, Any] = {
            "symbols": [f"SYM{number:02}" for number in range(self.symbols)],
            "feed": {"rate": self.rate},
        }
        down = {"stabilizationWindowSeconds": 30, "policies": [{"type": "Pods", "value": 2, "periodSeconds": 15}]}
        signals: dict[str, Any] = {}
        chosen: dict[str, Any] = {
            "config": config,
            "autoscaling": {"behavior": {"scaleDown": down}},
            "engines": {"signals": signals},
        }
        if self.target:
            signals["autoscaling"] = {"targetCPUUtilizationPercentage": self.target}
        if self.signal_rounds:
            rounds = {"rounds": self.signal_rounds}
            costly = {"kind": "/plugins/costly.py:Costly", "name": "costly", "parameters": rounds}
            config["signals"] = [{"name": "default", "signals": [*DEFAULT_SIGNALS, costly]}]
            chosen["extraObjects"] = [PLUGIN]
            mounted = {
                "extraVolumes": [{"name": "plugins", "configMap": {"name": "costly-signal"}}],
                "extraVolumeMounts": [{"name": "plugins", "mountPath": "/plugins", "readOnly": True}],
            }
            signals |= mounted
            # These ask which signals there are; the setup Job does, too, and cannot mount anything.
            chosen["engines"]["strategy"] = mounted
            chosen["janitor"] = mounted
            chosen["setup"] = {"enabled": False}
        return json.dumps(chosen)
