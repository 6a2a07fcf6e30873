"""Plays for tests: a scenario in a line or two."""

from __future__ import annotations

from overlay.sim.play import Play
from overlay.sim.scenario import parse


def play(
    events: str, *, until: float = 30.0, nodes: int = 4, head: str = "", cluster: str = ""
) -> Play:
    """A play of `nodes` nodes with these events.

    Args:
        events: their tables.
        until: its end, in virtual seconds.
        nodes: how many are there from the start.
        head: keys in front of the first table.
        cluster: more keys of the table of that name.
    """
    top = f'title = "test"\nuntil = {until}\n{head}\n'
    return Play(parse(f"{top}[cluster]\nnodes = {nodes}\n{cluster}\n{events}"))


def event(at: float, do: str, **keys: str) -> str:
    """One event; values as TOML has them."""
    lines = [f"{key} = {value}" for key, value in keys.items()]
    return "\n".join(["[[event]]", f"at = {at}", f'do = "{do}"', *lines, ""])
