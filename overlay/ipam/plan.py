"""How the cluster's ranges are cut into blocks: arithmetic, and nothing but arithmetic.

Block i is the i-th IPv4 prefix of length `block_prefix` in `cidr` *and* the i-th /64 in `cidr6`.
Host h names one address in each of them, so a pod's two addresses are one decision:

    cidr  10.244.0.0/16, blocks of /24      cidr6  fd4d:75::/48

    block 0    10.244.0.0/24                fd4d:75:0:0::/64
    block 1    10.244.1.0/24                fd4d:75:0:1::/64
               10.244.1.0    network        fd4d:75:0:1::      (subnet-router anycast)
               10.244.1.1    the node       fd4d:75:0:1::1     in the node's first block
               10.244.1.2    first pod      fd4d:75:0:1::2
               ...
               10.244.1.254  last pod       fd4d:75:0:1::fe
               10.244.1.255  broadcast      -

References:
    RFC 4291, section 2.6.1: the all-zero host of an IPv6 subnet is taken by its routers.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from overlay.types import Address, BlockIndex
from overlay.wire.cluster import POD_PREFIX6, Cluster

NODE_HOST: Final = 1
"""Host number of the node itself, in the first block it uses; unused in its other blocks."""
FIRST_POD_HOST: Final = 2

REMEMBERED: Final = 256
"""Prefixes of each family that are kept once they are made (about 200 bytes each)."""

_BITS4: Final = 32
_BITS6: Final = 128


def count_blocks(cluster: Cluster) -> int:
    """How many blocks there are; the first one is 0."""
    return 1 << (cluster.block_prefix - cluster.cidr.prefixlen)


class BlockPlan:
    """The blocks of one cluster. Immutable; two plans of one cluster agree on everything.

    A block index out of range is a defect of the caller and raises IndexError; indexes from peers
    go through `__contains__` first.

    Args:
        cluster: whose blocks these are.
        remember: how many prefixes of each family are kept once they are made.

    Attributes:
        cluster: as given.
        blocks: how many there are; indexes are 0 <= index < blocks.
        host_bits: bits of a host number.
        last_pod_host: pods have hosts FIRST_POD_HOST to this one, both included.
    """

    __slots__ = (
        "_base4",
        "_base6",
        "_made4",
        "_made6",
        "_prefix4",
        "_remember",
        "blocks",
        "cluster",
        "host_bits",
        "last_pod_host",
    )

    def __init__(self, cluster: Cluster, remember: int = REMEMBERED) -> None:
        self.cluster = cluster
        # Some prefixes are asked for again and again, and take longer to make than anything done
        # with them.
        self._remember = remember
        self._made4: dict[BlockIndex, IPv4Network] = {}
        self._made6: dict[BlockIndex, IPv6Network] = {}
        self._prefix4 = cluster.block_prefix
        self._base4 = int(cluster.cidr.network_address)
        self._base6 = None if cluster.cidr6 is None else int(cluster.cidr6.network_address)
        self.blocks = count_blocks(cluster)
        self.host_bits = _BITS4 - cluster.block_prefix
        self.last_pod_host = (1 << self.host_bits) - 2

    def __contains__(self, index: int) -> bool:
        return 0 <= index < self.blocks

    @property
    def capacity(self) -> int:
        """Pods that one block holds."""
        return self.last_pod_host - FIRST_POD_HOST + 1

    def prefix4(self, index: BlockIndex) -> IPv4Network:
        """The IPv4 prefix of a block."""
        made = self._made4.get(index)
        if made is None:
            if len(self._made4) >= self._remember:
                self._made4.clear()
            made = self._made4[index] = IPv4Network((self._start4(index), self._prefix4))
        return made

    def prefix6(self, index: BlockIndex) -> IPv6Network | None:
        """The IPv6 prefix of a block; None in a cluster without IPv6."""
        made = self._made6.get(index)
        if made is None:
            start = self._start6(index)
            if start is None:
                return None
            if len(self._made6) >= self._remember:
                self._made6.clear()
            made = self._made6[index] = IPv6Network((start, POD_PREFIX6))
        return made

    def address4(self, index: BlockIndex, host: int) -> IPv4Address:
        """The IPv4 address of a host number, 0 <= host < 2**host_bits."""
        return IPv4Address(self._start4(index) + host)

    def address6(self, index: BlockIndex, host: int) -> IPv6Address | None:
        """The IPv6 address of a host number; None in a cluster without IPv6."""
        start = self._start6(index)
        return None if start is None else IPv6Address(start + host)

    def index_of(self, address: Address) -> BlockIndex | None:
        """The block that an address of either family lies in; None outside the cluster."""
        return self.index_at(address.version, int(address))

    def index_at(self, version: int, address: int) -> BlockIndex | None:
        """The same for an address of IP `version` as an integer."""
        if version == 4:
            offset = (address - self._base4) >> self.host_bits
        elif self._base6 is None:
            return None
        else:
            offset = (address - self._base6) >> (_BITS6 - POD_PREFIX6)
        return BlockIndex(offset) if 0 <= offset < self.blocks else None

    def host_of(self, address: Address) -> int | None:
        """The host number of an address; None outside the cluster.

        IPv6 has more hosts in a block than IPv4; those above have no IPv4 twin and give None.
        """
        index = self.index_of(address)
        if index is None:
            return None
        if isinstance(address, IPv4Address):
            return int(address) - self._start4(index)
        host = int(address) & ((1 << (_BITS6 - POD_PREFIX6)) - 1)
        return host if host < 1 << self.host_bits else None

    def is_pod_host(self, host: int) -> bool:
        """Whether a pod may have this host number."""
        return FIRST_POD_HOST <= host <= self.last_pod_host

    def _start4(self, index: BlockIndex) -> int:
        self._check(index)
        return self._base4 + (index << self.host_bits)

    def _start6(self, index: BlockIndex) -> int | None:
        self._check(index)
        return None if self._base6 is None else self._base6 + (index << (_BITS6 - POD_PREFIX6))

    def _check(self, index: BlockIndex) -> None:
        if index not in self:
            raise IndexError(f"block {index} of {self.blocks}")
