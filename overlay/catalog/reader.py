"""Reads what items carry: bytes in, frozen values out, signatures checked.

    item b"n".. --> record    certified by its issuer, signed by its node
    item b"b".. --> chain     deeds that follow each other; each signature is asked for by itself

What a reader returns depends on the bytes and the cluster alone, never on the time nor on what it
read before; whether an authority is trusted, each node asks for itself (`overlay.catalog.trust`).
So one may remember what it likes, and many nodes in one process may share one: a
thousand of them then check one signature once (`overlay.sim.reader`).

A node alone remembers certificates only. Records of one node carry the same one in every version,
and so do its handshakes.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2s
from typing import Final

from overlay.catalog.keys import block_of_key
from overlay.catalog.records import NodeRecord, open_record_untrusted
from overlay.catalog.removals import open_removal_untrusted, removed_of_key
from overlay.catalog.trust import Trust
from overlay.config import Limits
from overlay.ipam.deeds import ChainReader, verify_chain
from overlay.ipam.plan import BlockPlan
from overlay.wire.authority import AUTHORITIES_KEY
from overlay.wire.certificate import Certificate
from overlay.wire.claims import Claim, is_proven
from overlay.wire.cluster import Cluster
from overlay.wire.items import Item, item_id

CERTIFICATES: Final = 4096
"""Certificates remembered (about 600 bytes each). In a larger cluster some are checked again, and
whoever makes certificates of its own can push them out: that costs it as much as it costs us."""


class Reader(ChainReader):
    """Reads items of one cluster.

    Args:
        cluster: whose they must be.
        limits: `record` bounds the size of a record.

    Attributes:
        cluster: as given.
        plan: the cluster's blocks.
    """

    def __init__(self, cluster: Cluster, limits: Limits) -> None:
        super().__init__(cluster)
        self._limits = limits
        self.plan = BlockPlan(cluster)
        self._certificates: dict[bytes, Certificate] = {}

    def certificate(self, data: bytes) -> Certificate:
        """A certificate of this cluster. Neither its time nor trust in its issuer is asked for.

        Raises:
            WireError: it does not parse.
            AuthError: its issuer has not signed it. Nothing else.
        """
        digest = blake2s(data).digest()  # a fifth of the bytes it stands for
        known = self._certificates.get(digest)
        if known is not None:
            return known
        certificate = Certificate.decode_untrusted(data)
        certificate.verify_signature(self.cluster)
        certificate = replace(certificate, cluster=self.cluster.id)  # equal; held once
        if len(self._certificates) >= CERTIFICATES:
            del self._certificates[next(iter(self._certificates))]
        self._certificates[digest] = certificate
        return certificate

    def keep(self, item: Item) -> Item:
        """`item`, or an equal one that is held already, so that its bytes are held once."""
        return item

    def id_of(self, item: Item) -> bytes:
        """The item's id."""
        return item_id(item)

    def record(self, item: Item) -> NodeRecord:
        """A node's record, signed by it. See `open_record_untrusted` for what this raises."""
        return open_record_untrusted(item, self.cluster, self.plan, self._limits, self.certificate)

    def is_proven(self, claim: Claim) -> bool:
        """Whether the node of `claim` itself went on to that incarnation."""
        return is_proven(claim, self.cluster.id)

    def verify(self, item: Item) -> None:
        """Check all signatures of an item that is held, as if nothing were remembered.

        Raises:
            WireError: it does not parse.
            AuthError: a signature does not hold. Nothing else.
        """
        if block_of_key(item.key) is not None:
            reader = ChainReader(self.cluster)
            verify_chain(reader.chain(item.body), reader)
        elif removed_of_key(item.key) is not None:
            open_removal_untrusted(item, self.cluster)
        elif item.key == AUTHORITIES_KEY:
            Trust.founded(self.cluster).extend_untrusted(item)
        else:
            open_record_untrusted(item, self.cluster, self.plan, self._limits)
