"""What a node remembers across restarts, as one value.

    boot      grows by one at each start, stored before use: record versions and handshake stamps
              are built on it, so they only grow even if the last ones never reached the disk
    pods      attached pods with their addresses
    items     everything gossip knew: other nodes' records and the deeds of all blocks
    tokens    join tokens and who used them (only where the authority's key lives)
    names     names the authority has certified

The folder, its files and their checksums are `node.state`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from overlay.types import BlockIndex
from overlay.wire.certificate import NAME_MAX
from overlay.wire.items import Item
from overlay.wire.packing import Fields, pack

FORMAT: Final = 1
MAX_STATE: Final = 64 << 20
"""Far above what the limits on items and pods allow; only a damaged length exceeds it."""

MAX_NETNS: Final = 4096
"""Characters of the path of a namespace: Linux' PATH_MAX. Text that is stored must be printable,
too, or it could not be read back."""

_MAX_LIST: Final = 1 << 17


@dataclass(frozen=True, slots=True)
class StoredPod:
    """One attached pod."""

    name: str
    netns: str
    """Path of its network namespace."""
    block: BlockIndex
    host: int
    """Host number inside the block: names its IPv4 and its IPv6 address."""
    since: int
    """Unix seconds of its creation."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """Everything stored of one node."""

    boot: int = 0
    pods: tuple[StoredPod, ...] = ()
    items: tuple[Item, ...] = ()
    tokens: bytes = b""
    names: bytes = b""
    blocks_in_use: tuple[BlockIndex, ...] = field(default=())
    left: bool = False

    def encode(self) -> bytes:
        """The stored bytes."""
        pods = [[pod.name, pod.netns, pod.block, pod.host, pod.since] for pod in self.pods]
        items = [list(item) for item in self.items]
        blocks = list(self.blocks_in_use)
        return pack([FORMAT, self.boot, pods, items, self.tokens, self.names, blocks, self.left])

    @classmethod
    def decode(cls, stored: bytes) -> NodeState:
        """Read what `encode` wrote.

        Raises:
            WireError: damaged, or of a newer format. Nothing else.
        """
        fields = Fields.unpack_untrusted(stored, MAX_STATE, "state", version=FORMAT)
        blocks = fields.fields(6, "blocks in use")
        return cls(
            boot=fields.integer(1, 0, (1 << 32) - 1),
            pods=tuple(_pod(value) for value in fields.sequence(2, _MAX_LIST)),
            items=tuple(_item(value) for value in fields.sequence(3, _MAX_LIST)),
            tokens=fields.bytes(4, limit=MAX_STATE),
            names=fields.bytes(5, limit=MAX_STATE),
            blocks_in_use=tuple(
                BlockIndex(blocks.integer(at, 0, 0xFFFF)) for at in range(len(blocks))
            ),
            left=fields.boolean(7),
        )


def _pod(value: object) -> StoredPod:
    fields = Fields(value, "pod")
    return StoredPod(
        name=fields.text(0, NAME_MAX),
        netns=fields.text(1, MAX_NETNS),
        block=BlockIndex(fields.integer(2, 0, 0xFFFF)),
        host=fields.integer(3, 0, 0xFFFFFFFF),
        since=fields.integer(4),
    )


def _item(value: object) -> Item:
    fields = Fields(value, "item")
    return Item(fields.bytes(0, limit=64), fields.integer(1), fields.bytes(2, limit=MAX_STATE))
