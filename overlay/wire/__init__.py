"""Bytes <-> values: everything that travels between nodes or through the TUN."""
