"""Venues: the interface that every exchange adapter has, and the adapters."""
