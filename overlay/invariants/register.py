"""What is known of all nodes by somebody who sees them all: who holds what, who signed what.

One `Act` after the other is entered: a machine did something, and this is what it holds now.

    machine acted --> Act(items new to it, blocks, pods) --> CLUSTER_INVARIANTS --> breaches
                                                                   |
                                                               Register: indexes by block, by
                                                               address, by version

Every index is kept up, never computed anew: a check costs what changed, not what there is.

Two kinds of nodes are excused, because what they do to each other is not a defect: `suspects`,
whose owner is hostile or whose state was copied or restored, and `removed` ones, which may go on
for as long as nobody reaches them. What *others* hold stays under judgement, except of blocks that
a suspect has signed over (`forked`), maybe twice, and of those until the cluster is at rest.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from overlay.catalog.keys import block_of_key
from overlay.ipam.allocator import Slot
from overlay.ipam.deeds import Chain, Deed, decode_chain_untrusted
from overlay.types import BlockIndex, NodeId
from overlay.wire.items import Item

if TYPE_CHECKING:  # the engine imports this package; the type alone needs it back
    from overlay.engine import Engine

K = TypeVar("K", bound=Hashable)


class Holder(NamedTuple):
    """Who holds something."""

    machine: str
    node: NodeId
    pod: str = ""

    def __str__(self) -> str:
        return f"{self.machine}/{self.pod}" if self.pod else self.machine


class Stored(NamedTuple):
    """What of a node's own would still be there after a power failure."""

    version: int
    """Of its record; 0: none."""
    deeds: Set[bytes]
    """Signatures of all deeds in all chains."""
    bases: Mapping[BlockIndex, int]
    """Sequence of the base of every block that has one."""


class Claims(Generic[K]):
    """Which machine holds what, by both.

    >>> claims = Claims()
    >>> one, two = Holder("a", NodeId(b"1")), Holder("b", NodeId(b"2"))
    >>> list(claims.hold("a", {7: one})), [key for key, _ in claims.hold("b", {7: two})]
    ([], [7])
    """

    __slots__ = ("_by_machine", "_holders")

    def __init__(self) -> None:
        self._by_machine: dict[str, Mapping[K, Holder]] = {}
        self._holders: dict[K, dict[str, Holder]] = {}

    def hold(self, machine: str, held: Mapping[K, Holder]) -> Iterator[tuple[K, list[Holder]]]:
        """`machine` holds exactly this from now on.

        Returns:
            What it holds anew although others hold it too, and those others.
        """
        before = self._by_machine.get(machine, {})
        self._by_machine[machine] = held
        for key in before.keys() - held.keys():
            del self._holders[key][machine]
        found = []
        for key, holder in held.items():
            if before.get(key) == holder:
                continue
            others = self._holders.setdefault(key, {})
            others[machine] = holder
            if len(others) > 1:
                found.append((key, [other for name, other in others.items() if name != machine]))
        return iter(found)

    def forget(self, machine: str) -> None:
        """`machine` holds nothing until it says so again."""
        for key in self._by_machine.pop(machine, {}):
            del self._holders[key][machine]

    def shared(self) -> Iterator[tuple[K, list[Holder]]]:
        """What several machines hold now."""
        for key, holders in self._holders.items():
            if len(holders) > 1:
                yield key, list(holders.values())


@dataclass(slots=True)
class Act:
    """A machine did something; what it holds now. None: that has not changed."""

    register: Register
    machine: str
    node: NodeId
    engine: Engine
    items: list[tuple[Item | None, Item]] = field(default_factory=list)
    """Items it holds anew, each with the one it held before."""
    used: Set[BlockIndex] | None = None
    owned: Set[BlockIndex] | None = None
    """Blocks that it uses, would use, or would give away."""
    slots: Mapping[Slot, str] | None = None

    def chain(self, item: Item) -> Chain | None:
        """The chain of title in an item of deeds; None for any other."""
        if block_of_key(item.key) is None:
            return None
        chain = self.register.decoded.get(item.body)
        if chain is None:
            chain = decode_chain_untrusted(item.body, self.engine.cluster)
            self.register.decoded[item.body] = chain
        return chain

    def deeds(self, item: Item) -> tuple[Deed, ...]:
        """The deeds in an item of deeds; none in any other."""
        chain = self.chain(item)
        return () if chain is None else chain.deeds

    def holder(self, pod: str = "") -> Holder:
        """This machine, or one of its pods."""
        return Holder(self.machine, self.node, pod)


class Register:
    """Everything that cluster-wide checks remember.

    Args:
        signed: whether the owner of a key has ever signed this message.
        stored: what a node would still have after a power failure at this moment; None: nobody
            knows.
    """

    def __init__(
        self,
        signed: Callable[[bytes, bytes], bool],
        stored: Callable[[NodeId], Stored | None],
    ) -> None:
        self.signed = signed
        self.stored = stored
        self.users: Claims[BlockIndex] = Claims()
        self.owners: Claims[BlockIndex] = Claims()
        self.holders: Claims[Slot] = Claims()
        self.suspects: set[NodeId] = set()
        self.removed: set[NodeId] = set()
        self.forked: set[BlockIndex] = set()
        self.contents: dict[tuple[bytes, int], bytes] = {}
        """The body of every version of a record that another node than its owner accepted."""
        self.deeds: dict[tuple[object, ...], bytes] = {}
        """The signature of the deed at every place in a chain that anybody accepted."""
        self.decoded: dict[bytes, Chain] = {}
        self.vouched: set[Item] = set()
        """Items of which everything is known to be signed."""

    def forget(self, machine: str) -> None:
        """What this machine holds will be said anew."""
        self.users.forget(machine)
        self.owners.forget(machine)
        self.holders.forget(machine)

    def excused(self, block: BlockIndex, *holders: Holder) -> bool:
        """Whether two may hold this block, or an address of it, for a while."""
        if block in self.forked:
            return True
        return any(one.node in self.suspects or one.node in self.removed for one in holders)
