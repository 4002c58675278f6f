"""Notifications: decides what people should hear of, and takes it to their channels."""
