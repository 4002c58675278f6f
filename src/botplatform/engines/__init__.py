"""The engines: each turns events into events and effects, and none of them calls another."""
