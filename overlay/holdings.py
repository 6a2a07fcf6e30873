"""What this node itself holds: address blocks, pods, and the record that tells others of them.

    titles (who owns which block) --+
                                    +--> blocks in use --> pod addresses --> record, signed
    the operator's `pod add` -------+

Only this node writes its record and only it signs deeds for its blocks, so everything here is
decided without asking anyone. Nothing here is announced before the engine has stored it.

Error contract: an operation that raises has changed nothing.
"""

from __future__ import annotations

from typing import Final

from overlay.catalog.catalog import Catalog
from overlay.catalog.records import ENDPOINTS_MAX, PodEntry, deed_key, sign_record
from overlay.config import Limits
from overlay.errors import ConfigError, RefusedError
from overlay.ipam.allocator import Allocator, pick_block_to_give
from overlay.ipam.deeds import Chain, encode_chain, sign_deed
from overlay.ipam.plan import NODE_HOST, BlockPlan
from overlay.state import MAX_NETNS, NodeState, StoredPod
from overlay.types import Address, BlockIndex, Endpoint, NodeId
from overlay.wire.certificate import Identity, check_name
from overlay.wire.items import Item
from overlay.wire.packing import U64

SPARE_SHARE: Final = 32
"""One part in so many of the largest record is left free by pods. Addresses, blocks and software
change without being asked, and may then take more room: that must not fail."""


class Holdings:
    """Blocks, pods and record of one node.

    Args:
        identity: keys and certificate.
        catalog: what the cluster knows; titles of blocks are read from it.
        plan: block numbers <-> addresses.
        state: what was stored; `boot` is already this start's.
        software: version shown to others.
        is_authority: whether this node can admit members.
        limits: `record` bounds the size of the record.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        catalog: Catalog,
        plan: BlockPlan,
        state: NodeState,
        software: str,
        is_authority: bool,
        limits: Limits,
    ) -> None:
        self._identity = identity
        self._catalog = catalog
        self._plan = plan
        self._software = software
        self._is_authority = is_authority
        self._limits = limits
        self._version = state.boot << 32
        self._announced_free = 0
        self._free_counted = (-1, -1)
        self._free_count = 0
        self.endpoints: tuple[Endpoint, ...] = ()
        self.left = state.left
        self.blocks_in_use: list[BlockIndex] = list(state.blocks_in_use)
        self.pods: dict[str, StoredPod] = {pod.name: pod for pod in state.pods}
        self._allocator = Allocator(plan)
        for block in self.blocks_in_use:
            self._allocator.add_block(block)
        for pod in state.pods:
            self._allocator.restore(pod.name, pod.block, pod.host)

    @property
    def boot(self) -> int:
        """The boot counter: this start's, or that of the newer record it went on from."""
        return self._version >> 32

    # -- addresses -----------------------------------------------------------------------------

    @property
    def address(self) -> Address | None:
        """The node's own IPv4 address: the first of its first block."""
        if not self.blocks_in_use:
            return None
        return self._plan.address4(self.blocks_in_use[0], NODE_HOST)

    @property
    def address6(self) -> Address | None:
        """The node's own IPv6 address, where the cluster has IPv6."""
        if not self.blocks_in_use:
            return None
        return self._plan.address6(self.blocks_in_use[0], NODE_HOST)

    def owned(self) -> set[BlockIndex]:
        """All blocks titled to this node, in use or not."""
        return set(self._catalog.titles.blocks_of(self._identity.node))

    def free(self) -> list[BlockIndex]:
        """Blocks it could give away."""
        return sorted(self.owned() - set(self.blocks_in_use))

    def free_count(self) -> int:
        """How many blocks it could give away.

        Counted anew only when a block has moved or was taken into use: it is asked after every
        item that gossip brings.
        """
        titles, used = self._catalog.titles, self.blocks_in_use
        asked = (titles.generation, len(used))
        if self._free_counted != asked:
            node = self._identity.node
            used_own = sum(titles.owner(block) == node for block in used)
            self._free_counted, self._free_count = asked, titles.count_of(node) - used_own
        return self._free_count

    def free_has_changed(self) -> bool:
        """Whether the last record says another number of free blocks than there are now."""
        return self.free_count() != self._announced_free

    def use_a_block(self) -> bool:
        """Take an owned block that is not in use into use; False if there is none.

        The first that never moved, else the first of all.
        """
        block = next(self._catalog.titles.spare(self._identity.node, self.blocks_in_use), None)
        if block is None:
            return False
        self.blocks_in_use.append(block)
        self._allocator.add_block(block)
        return True

    # -- pods ----------------------------------------------------------------------------------

    def add_pod(
        self, name: str, netns: str, address: Address | None, wall: float, now: float
    ) -> StoredPod:
        """Give a pod its addresses.

        Raises:
            ConfigError: the name, or the path of the namespace, is not one.
            RefusedError: `pod-exists`, `no-block`, or the allocator's codes. Nothing else.
        """
        check_name(name)
        if len(netns) > MAX_NETNS or not netns.isprintable():
            raise ConfigError("the path of the namespace is too long or not printable", "--netns")
        if name in self.pods:
            raise RefusedError("pod-exists", f"pod {name} exists", "choose another name")
        if not self.blocks_in_use:
            fix = "wait until a member with free blocks is reachable"
            raise RefusedError("no-block", "this node has no address block yet", fix)
        block, host = self._allocator.allocate(name, address, now)
        pod = StoredPod(name, netns, block, host, int(wall))
        self.pods[name] = pod
        return pod

    def remove_pod(self, name: str, now: float) -> StoredPod:
        """Take a pod's addresses back.

        Raises:
            RefusedError: `no-such-pod`. Nothing else.
        """
        pod = self.pods.pop(name, None)
        if pod is None:
            known = ", ".join(sorted(self.pods)) or "it has none"
            raise RefusedError("no-such-pod", f"no pod {name} on this node", f"its pods: {known}")
        self._allocator.free(name, now)
        return pod

    # -- giving blocks away --------------------------------------------------------------------

    def give(self, taker: NodeId) -> Item:
        """Sign one free block over to `taker`. Apply and store the result before it is sent.

        A taker that asks again because the answer was lost gets the deed it already has: a block
        titled to it that its record does not use yet. One that has had blocks gets another only
        when its record shows as many pods as they hold, so that no member can take them all.

        Raises:
            RefusedError: `no-free-block`, `has-room`. Nothing else.
        """
        titles = self._catalog.titles
        record = self._catalog.nodes.get(taker)
        used, pods = (record.blocks_in_use, len(record.pods)) if record else ((), 0)
        for held in sorted(titles.moved_to(taker).difference(used)):
            # The founder's own blocks have no deeds: there is nothing to show it again.
            return _deed_item(titles.chain(held))
        if titles.given_to(taker) * self._plan.capacity > pods:
            raise RefusedError("has-room", "the blocks you were given are not full of pods")
        block = pick_block_to_give(titles, self._identity.node, self.blocks_in_use)
        if block is None:
            raise RefusedError("no-free-block", "this node has no block to give away")
        return self._transfer(block, taker)

    def hand_back(self, taker: NodeId) -> list[Item]:
        """Sign everything over to `taker`: this node is leaving. Apply and store it first.

        Its pods lose their addresses; the caller disconnects them.
        """
        items = [self._transfer(block, taker) for block in sorted(self.owned())]
        self.blocks_in_use.clear()
        self.pods.clear()
        self._allocator = Allocator(self._plan)
        self.left = True
        return items

    def _transfer(self, block: BlockIndex, taker: NodeId) -> Item:
        chain = self._catalog.titles.chain(block)
        deed = sign_deed(
            self._identity.signing,
            cluster=self._identity.certificate.cluster,
            block=block,
            sequence=len(chain) + 1,
            taker=taker,
        )
        return _deed_item((*chain, deed))

    # -- telling others ------------------------------------------------------------------------

    def record(self, *, pod_added: bool = False) -> Item:
        """This node's record as it is now, under a version never used before.

        The boot counter is in the version and was stored before this start used it, so versions
        grow even when the last ones before a crash were never written. A state that was restored
        from a backup has an old counter: then they go on from the record that others still have.

        Args:
            pod_added: a pod is why there is a new one; it has to leave `SPARE_SHARE` free.

        Raises:
            CapacityError: the record is too large (`record`). Nothing else.
        """
        self._version = max(self._version, self._overtaking()) + 1
        self._announced_free = self.free_count()
        limit = self._limits.record
        if pod_added:
            limit -= limit // SPARE_SHARE
        return sign_record(
            self._identity,
            version=self._version,
            endpoints=self.endpoints[:ENDPOINTS_MAX],
            blocks_in_use=self.blocks_in_use,
            free_blocks=self._announced_free,
            pods=[PodEntry(pod.name, pod.block, pod.host, pod.since) for pod in self._sorted()],
            software=self._software,
            is_authority=self._is_authority,
            left=self.left,
            limit=limit,
        )

    def is_overtaken(self) -> bool:
        """Whether a newer record of this node is about than the last one it has made."""
        return self._overtaking() > self._version

    def _overtaking(self) -> int:
        known = self._catalog.nodes.get(self._identity.node)
        # A node that has left is not brought back by an old backup: its name may be another's.
        # Nothing comes after the last version, which only a thief of the key would have signed.
        if known is None or known.left or known.version == U64:
            return 0
        return known.version

    def _sorted(self) -> list[StoredPod]:
        return [self.pods[name] for name in sorted(self.pods)]

    def stored(self, tokens: bytes = b"", names: bytes = b"") -> NodeState:
        """The state to persist, but for the items."""
        return NodeState(
            boot=self.boot,
            pods=tuple(self._sorted()),
            tokens=tokens,
            names=names,
            blocks_in_use=tuple(self.blocks_in_use),
            left=self.left,
        )


def _deed_item(chain: Chain) -> Item:
    return Item(deed_key(chain[0].block), len(chain), encode_chain(chain))
