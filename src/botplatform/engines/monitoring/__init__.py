"""Monitoring: the live model behind the terminal view, and the signs of life of all engines."""

from botplatform.engines.monitoring.engine import MonitoringEngine
from botplatform.engines.monitoring.model import LiveModel

__all__ = ["LiveModel", "MonitoringEngine"]
