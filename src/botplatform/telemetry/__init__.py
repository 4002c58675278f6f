"""What the platform says about itself: log records, and events in one line for people."""
