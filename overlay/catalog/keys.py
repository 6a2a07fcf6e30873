"""Which item is about what: the keys under which gossip keeps records and deeds.

b"n" || node id 32      a node's record              (`overlay.catalog.records`)
b"b" || u32 block       the title of a block         (`overlay.ipam.deeds`)
b"a" || node id 32      the removal of a node        (`overlay.catalog.removals`)
b"c"                    the list of authorities      (`overlay.wire.authority`)
"""

from __future__ import annotations

from typing import Final

from overlay.ipam.deeds import Chain
from overlay.keys import KEY_SIZE
from overlay.types import BlockIndex, NodeId
from overlay.wire.items import Item

# -- specification ---------------------------------------------------------------------------------

_NODE_PREFIX: Final = b"n"
_DEED_PREFIX: Final = b"b"
_DEED_KEY_SIZE: Final = 5


def node_key(node: NodeId) -> bytes:
    """The item key of a node's record."""
    return _NODE_PREFIX + node


def node_of_key(key: bytes) -> NodeId | None:
    """Whose record has this key; None if it is no record's.

    >>> node_of_key(node_key(NodeId(bytes(32)))) == bytes(32)
    True
    """
    if key[:1] != _NODE_PREFIX or len(key) != 1 + KEY_SIZE:
        return None
    return NodeId(key[1:])


def deed_key(block: BlockIndex) -> bytes:
    """The item key of a block's deeds (`overlay.ipam.deeds`).

    >>> block_of_key(deed_key(BlockIndex(258)))
    258
    """
    return _DEED_PREFIX + block.to_bytes(_DEED_KEY_SIZE - 1, "big")


def deed_item(chain: Chain) -> Item:
    """The item that shows the title of a block that has moved."""
    return Item(deed_key(chain.block), chain.base_sequence, chain.encode())


def block_of_deed(item: Item) -> BlockIndex:
    """The block that is told of by an item of `deed_item`.

    >>> block_of_deed(Item(deed_key(BlockIndex(258)), 1, b""))
    258
    """
    return BlockIndex(int.from_bytes(item.key[1:], "big"))


def block_of_key(key: bytes) -> BlockIndex | None:
    """The block whose deeds have this key; None if there is none."""
    if key[:1] != _DEED_PREFIX or len(key) != _DEED_KEY_SIZE:
        return None
    return BlockIndex(int.from_bytes(key[1:], "big"))
