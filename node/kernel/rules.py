"""All packet filter rules of the node, composed of parts: the input of one `nft` transaction.

    LocalView, KernelSettings --guard-->    text --+
                              --(others)--> text --+--> compose --> nft -f, all or nothing
                                                   +

A part is a pure function that says what its chains, sets and counters are, in nft's own commands.
Rules of a part that has nothing to say any more must go, so the text begins by flushing the chains
of our tables: an empty chain lets everything pass, and nobody sees the moment in between. A part
declares its chains (`add chain` of one that is there changes nothing) and flushes its own sets;
counters are declared and never flushed, because they outlive every transaction.

Chains of parts have names of their own, which no other part uses. All are in the tables of
`FAMILIES`; more families are added there.

References:
    nft(8): `flush table` empties chains and leaves sets, counters and the chains themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from node.kernel.guard import guard_rules
from node.kernel.model import RULE_FAMILIES, RULE_TABLE, KernelSettings
from overlay.views import LocalView

Part = Callable[[LocalView, KernelSettings], str]
"""What one concern adds: lines for `nft -f`, each ended; empty for nothing."""

PARTS: Final[tuple[Part, ...]] = (guard_rules,)
"""In the order of their text. Where their chains meet the same hook, priorities decide."""


def compose(snapshot: LocalView, settings: KernelSettings) -> str:
    """The input of `nft -f` that makes our tables what they must be, whatever they were."""
    fresh = "".join(f"add table {table}\nflush table {table}\n" for table in _tables())
    return fresh + "".join(part(snapshot, settings) for part in PARTS)


def removal() -> str:
    """The input of `nft -f` that takes all of it away, also when nothing is there."""
    return "".join(f"add table {table}\ndelete table {table}\n" for table in _tables())


def _tables() -> list[str]:
    return [f"{family} {RULE_TABLE}" for family in RULE_FAMILIES]
