"""Drives engines on a bus: the same engines in a backtest, in replay and on JetStream."""
