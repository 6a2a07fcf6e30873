"""What must always be true, as one list: for the simulator, the tests and the running daemon.

    >>> [one.name for one in NODE_INVARIANTS][:3]
    ['boot-grows', 'version-grows', 'block-titled']
    >>> find("one-user").claim
    'No address block is used by two nodes.'

Two kinds. What one node can see of itself (`node`): the daemon looks every few seconds and shows a
breach in `muslin status`; the simulator looks after every event. What only somebody can see who
sees all nodes (`cluster`): the simulator alone.

Reading order: `kinds` (what an invariant is), `watch` (somebody who looks at one node, and what he
remembers), `node` (the list for one node), `register` (what is known of all nodes), `cluster` (the
list for all).
"""

from __future__ import annotations

from overlay.invariants.cluster import CLUSTER_INVARIANTS
from overlay.invariants.kinds import Breach, Invariant, Scope
from overlay.invariants.node import NODE_INVARIANTS
from overlay.invariants.register import Act, Register
from overlay.invariants.watch import Memory, Watch

INVARIANTS = (*NODE_INVARIANTS, *CLUSTER_INVARIANTS)
"""All of them."""


def find(name: str) -> Invariant[Watch] | Invariant[Act]:
    """The invariant of that name; KeyError if there is none."""
    by_name: dict[str, Invariant[Watch] | Invariant[Act]] = {}
    by_name.update({one.name: one for one in NODE_INVARIANTS})
    by_name.update({one.name: one for one in CLUSTER_INVARIANTS})
    return by_name[name]


__all__ = [
    "CLUSTER_INVARIANTS",
    "INVARIANTS",
    "NODE_INVARIANTS",
    "Act",
    "Breach",
    "Invariant",
    "Memory",
    "Register",
    "Scope",
    "Watch",
    "find",
]
