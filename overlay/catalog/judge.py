"""Judges by the list of authorities what this node lets into its catalog.

A reader (`overlay.catalog.reader`) says whether an authority signed something, which depends on the
bytes alone. Whether that authority's word counts depends on the list that this node knows at the
moment, and is asked here, each time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NoReturn

from overlay.catalog.records import NodeRecord
from overlay.catalog.removals import Removal
from overlay.catalog.trust import ForkError, Trust
from overlay.drops import DropReason
from overlay.errors import AuthError, ForgedError
from overlay.faults import Fault
from overlay.ipam.deeds import Base
from overlay.types import NodeId
from overlay.wire.authority import Link, links_untrusted
from overlay.wire.cluster import Cluster
from overlay.wire.items import Item

FORKS: Final = 8
"""Other lists of authorities that are remembered: a stolen key can make any number."""


class Judge:
    """One node's view of whose word counts.

    Args:
        cluster: whose authorities.
        local: this node, whose own record is in effect here whatever its certificate is worth.
        is_node: whether a key is the identity of a node. No authority has such a key.

    Attributes:
        trust: the authorities.
        forks: other lists of them that were valid, by their first link that is not ours; at most
            `FORKS`. To be read only.
        restoring: whether what is judged was admitted once before, and stored: then it is not asked
            whether it stands.
    """

    __slots__ = ("_cluster", "_is_node", "_local", "forks", "restoring", "trust")

    def __init__(
        self, cluster: Cluster, local: NodeId | None, is_node: Callable[[bytes], bool]
    ) -> None:
        self._cluster = cluster
        self._local = local
        self._is_node = is_node
        self.trust = Trust.founded(cluster)
        self.forks: dict[bytes, Link] = {}
        self.restoring = False

    def certifies(self, record: NodeRecord) -> bool:
        """Whether the authority that signed a record's certificate is trusted."""
        return record.node == self._local or self.trust.trusts(record.certificate.issuer)

    def check_record(self, record: NodeRecord) -> None:
        """Check that the authority that signed a record's certificate is trusted.

        Raises:
            AuthError: it is not.
            ForgedError: a node signed it. Nothing else.
        """
        if not self.certifies(record):
            what = f"the certificate of {record.name}"
            self._decline(what, record.certificate.issuer, Fault.FORGED_CERTIFICATE)

    def check_base(self, base: Base) -> None:
        """Check that a base counts that its signer did sign.

        Raises:
            AuthError: it does not.
            ForgedError: a node signed it. Nothing else.
        """
        if not self._stands(base.signer, base.signed_bytes(self._cluster.id)):
            self._decline(f"the base of block {base.block}", base.signer, Fault.FORGED_BASE)

    def check_removal(self, removal: Removal, content: bytes) -> None:
        """Check that a removal counts that its signer did sign; `content` is what was signed.

        Raises:
            AuthError: it does not.
            ForgedError: a node signed it. Nothing else.
        """
        if not self._stands(removal.signer, content):
            what = f"the removal of {removal.name}"
            self._decline(what, removal.signer, Fault.FORGED_REMOVAL)

    def _stands(self, signer: bytes, content: bytes) -> bool:
        if self.restoring:
            return self.trust.standing(signer) is not None
        return self.trust.stands(signer, content)

    def _decline(self, what: str, signer: bytes, fault: Fault) -> NoReturn:
        """Some list may have that authority, but none has a node's key."""
        if self._is_node(signer):
            raise ForgedError(f"{what} is signed by a node, which is no authority", fault)
        why = f"{what} is not by an authority that is trusted"
        raise AuthError(why, DropReason.BAD_CERTIFICATE)

    def admit(self, item: Item) -> None:
        """Let a list be in force from here on, if it continues the one that is known.

        Raises:
            WireError: the item is not the shape of a list.
            AuthError: it proves nothing, or nothing new, or does not continue it.
            ForgedError: a link is not signed by its signer, or by a node. Nothing else.
        """
        try:
            self.trust = self.trust.extend_untrusted(item)
        except ForgedError:
            raise
        except ForkError as fork:
            if len(self.forks) < FORKS:
                self.forks[fork.link.digest] = fork.link
            raise
        except AuthError:
            for link in links_untrusted(item):
                if self._is_node(link.signer):
                    self._decline(f"link {link.number}", link.signer, Fault.FORGED_LINK)
            raise

    def apply(self, item: Item) -> None:
        """Let a list be in force that was admitted, or that this node made itself.

        Raises:
            WireError, AuthError: as `admit`.
        """
        if item.version > len(self.trust.links):
            self.admit(item)
