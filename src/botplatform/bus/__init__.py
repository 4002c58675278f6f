"""Backends of the event bus, and the NATS server that the platform can start itself."""
