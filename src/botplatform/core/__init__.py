"""What everything stands on: events, the bus interface, the engine interface, and time, ids and randomness."""
