"""The event store: every event that was kept, and the journal of orders and fills."""
