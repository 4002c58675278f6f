"""The execution engine: decisions in, orders out; `order.*` in, the state of orders and legs kept."""

from botplatform.engines.execution.engine import ExecutionEngine

__all__ = ["ExecutionEngine"]
