"""All packet filter rules of the node, composed of parts: the input of one `nft` transaction.

    LocalView, KernelSettings --guard-->        text --+
                              --egress-->       text --+--> compose --> nft -f, all or nothing
                              --host ports-->   text --+

A part is a pure function that says what its chains, sets and counters are, in nft's own commands.
Rules of a part that has nothing to say any more must go, so the text begins by flushing the chains
of our tables: an empty chain lets everything pass, and nobody sees the moment in between. A part
declares its chains (`add chain` of one that is there changes nothing) and flushes its own sets;
counters are declared and never flushed, because they outlive every transaction.

Chains of parts have names of their own, which no other part uses. What drops is in the tables of
`RULE_FAMILIES`. What translates is in `NAT_TABLE`, which is there only if some part needs it: it
costs every packet of the machine something, and a kernel without NAT shall have the rest.

Without the rules pods have no way out that was promised, and their ports are closed: `unkept` says
so. (What else is missing then, the guard itself says.)

References:
    nft(8): `flush table` empties chains and leaves sets, counters and the chains themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from node.kernel.egress import egress_filter, egress_nat
from node.kernel.guard import guard_rules
from node.kernel.hostports import hostport_nat
from node.kernel.model import NAT_TABLE, RULE_FAMILIES, RULE_TABLE, KernelSettings
from overlay.views import LocalView, Problem

Part = Callable[[LocalView, KernelSettings], str]
"""What one concern adds: lines for `nft -f`, each ended; empty for nothing."""

PARTS: Final[tuple[Part, ...]] = (guard_rules, egress_filter)
"""In the order of their text. Where their chains meet the same hook, priorities decide."""

NAT_PARTS: Final[tuple[Part, ...]] = (egress_nat, hostport_nat)
"""Those of `NAT_TABLE`. Their chains may share a priority: none translates what another does."""


def compose(snapshot: LocalView, settings: KernelSettings) -> str:
    """The input of `nft -f` that makes our tables what they must be, whatever they were."""
    translations = "".join(part(snapshot, settings) for part in NAT_PARTS)
    nat = _emptied(_NAT) + translations if translations else _removed(_NAT)
    return compose_filters(snapshot, settings) + nat


def compose_filters(snapshot: LocalView, settings: KernelSettings) -> str:
    """The same without anything that translates, for a kernel that cannot."""
    fresh = "".join(map(_emptied, _FILTERS))
    return fresh + "".join(part(snapshot, settings) for part in PARTS)


def removal() -> str:
    """The input of `nft -f` that takes all of it away, also when nothing is there."""
    return "".join(map(_removed, TABLES))


def unkept(snapshot: LocalView, settings: KernelSettings, why: str) -> tuple[Problem, ...]:
    """What was promised and does not hold while the rules do not stand.

    Args:
        snapshot: the pods; only the ports of local ones matter.
        settings: what was promised to all pods.
        why: why the rules do not stand, in one clause; empty if they do.
    """
    found = []
    if why and settings.masquerade:
        what = "pods do not reach the world under this node's address"
        found.append(Problem("egress-off", what, why, NEEDS_NFT))
    if why and any(pod.local and pod.attachment.ports for pod in snapshot.pods):
        what = "the ports of this node do not lead to their pods"
        found.append(Problem("ports-closed", what, why, GET_NFT))
    return tuple(found)


def _emptied(table: str) -> str:
    return f"add table {table}\nflush table {table}\n"


def _removed(table: str) -> str:
    return f"add table {table}\ndelete table {table}\n"


_FILTERS: Final = tuple(f"{family} {RULE_TABLE}" for family in RULE_FAMILIES)
_NAT: Final = f"inet {NAT_TABLE}"
TABLES: Final = (*_FILTERS, _NAT)
"""All that are ours, with their families."""

GET_NFT: Final = "install nft (package nftables)"
NEEDS_NFT: Final = f'{GET_NFT}, or set egress = "none"'
"""What to do where pods cannot be masqueraded."""
