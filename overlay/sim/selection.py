"""Which nodes an event of a scenario is about, as a user writes it.

    "node3"              that node
    "node2..node5"       these, by the number at the end of the name
    "west"               a group of the scenario
    "all"                every node it could be about
    "rest"               those that the groups before it (of a partition) do not name
    3                    so many, drawn by the seed
    "30%"                a share of all, drawn by the seed, at least one
    ["node3", "10%"]     all of these together

The founder holds the authority's key. It is never drawn, so that joins go on working: only naming
it, or `all`, or `rest`, hits it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from overlay.errors import ConfigError

_SHARE = re.compile(r"(\d+(?:\.\d+)?)%")
_RANGE = re.compile(r"([a-z0-9-]*?)(\d+)\.\.\1(\d+)")


@dataclass(frozen=True, slots=True)
class Pool:
    """Whom a selection may choose from."""

    names: Sequence[str]
    """Candidates, in the order in which they were added."""
    groups: Mapping[str, Collection[str]] = field(default_factory=dict)
    founder: str = ""
    """Is never drawn."""
    taken: Collection[str] = ()
    """Not among the `rest`, and not drawn."""
    known: Collection[str] | None = None
    """Names that may be written, candidates or not; those of `names` unless given."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Nodes, as written. Equal selections choose equally from equal randomness."""

    terms: tuple[str | int, ...]

    @classmethod
    def read(cls, value: object, path: str) -> Selection:
        """A selection from a value of a TOML file.

        Raises:
            ConfigError: it is none. Nothing else.
        """
        terms: list[Any] = value if isinstance(value, list) else [value]
        for term in terms:
            count = isinstance(term, int) and not isinstance(term, bool) and term > 0
            if not count and not (isinstance(term, str) and term):
                raise ConfigError("must be a name, a count, a share or a list", path)
            share = _SHARE.fullmatch(term) if isinstance(term, str) else None
            if share and float(share[1]) > 100.0:
                raise ConfigError("there are not more than 100%", path)
        return cls(tuple(terms))

    def choose(self, pool: Pool, rng: random.Random) -> list[str]:
        """The nodes, in the order of the pool.

        Raises:
            ConfigError: a name is neither a node nor a group. Nothing else.
        """
        chosen: set[str] = set()
        for term in self.terms:
            chosen.update(_one(term, pool, chosen, rng))
        return [name for name in pool.names if name in chosen]

    def __str__(self) -> str:
        return ", ".join(map(str, self.terms))


def _one(
    term: str | int, pool: Pool, chosen: Collection[str], rng: random.Random
) -> Collection[str]:
    if isinstance(term, int):
        return _drawn(term, pool, chosen, rng)
    if share := _SHARE.fullmatch(term):
        count = max(1, round(len(pool.names) * float(share[1]) / 100.0))
        return _drawn(count, pool, chosen, rng)
    if term == "all":
        return pool.names
    if term == "rest":
        return [name for name in pool.names if name not in pool.taken]
    if term in pool.groups:
        return pool.groups[term]
    written = [term]
    if bounds := _RANGE.fullmatch(term):
        written = [f"{bounds[1]}{number}" for number in range(int(bounds[2]), int(bounds[3]) + 1)]
    known = pool.names if pool.known is None else pool.known
    for name in written:
        if name not in known:
            raise ConfigError(f"there is no node and no group {name}", "nodes")
    return written


def _drawn(count: int, pool: Pool, chosen: Collection[str], rng: random.Random) -> Collection[str]:
    unwanted = {pool.founder, *pool.taken, *chosen}
    candidates = [name for name in pool.names if name not in unwanted]
    return rng.sample(candidates, min(count, len(candidates)))
