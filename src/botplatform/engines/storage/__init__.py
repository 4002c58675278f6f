"""Storage: keeps the events, and the journal of orders and fills."""
