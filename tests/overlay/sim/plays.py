"""Plays for tests: a scenario in a line or two."""

from __future__ import annotations

from overlay.sim.play import Play
from overlay.sim.scenario import parse


def play(events: str, *, until: float = 30.0, nodes: int = 4, head: str = "") -> Play:
    """A play of `nodes` nodes with these events. `head` goes in front of the first table."""
    text = f'title = "test"\nuntil = {until}\n{head}\n[cluster]\nnodes = {nodes}\n{events}'
    return Play(parse(text))


def event(at: float, do: str, **keys: str) -> str:
    """One event; values as TOML has them."""
    lines = [f"{key} = {value}" for key, value in keys.items()]
    return "\n".join(["[[event]]", f"at = {at}", f'do = "{do}"', *lines, ""])
