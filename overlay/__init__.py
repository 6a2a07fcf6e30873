"""Decides: bytes and events in, bytes and effects out. No clock, no socket, no randomness."""
