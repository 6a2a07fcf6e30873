"""Whom the cluster trusts: the list of authorities, as far as this node knows it.

             install            use
    unknown ---------> trusted ------> in use        one is in use at any time; the first from the
                          |   <------                cluster's beginning on
                  remove  |     use of another
                          v
                       removed                       for ever

Every link is signed by an authority that is trusted (or in use) when the link is made. A removed
one never comes back, so its key signs no link that anybody takes.

A node takes another list only if it *continues* the one it has: same links, and more. So a list
that an authority's key forks off, before or after its removal, convinces nobody who has gone the
other way; and among the honest continuations of one list the order of arrival is of no account. A
valid fork means that authorities have signed two different next links: a key is stolen or copied.

What a removed authority has said in its time, removals of nodes and bases of blocks, is not undone:
the link that removes it names them (`stands`).

References:
    RFC 5011, section 2: new trust anchors signed by present ones; a revoked one stays revoked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import reduce
from typing import Final, NamedTuple

from overlay.drops import DropReason
from overlay.errors import AuthError, ForgedError, StateError, WireError
from overlay.faults import Fault
from overlay.wire.authority import (
    AUTHORITIES_KEY,
    Act,
    Link,
    digest_of,
    links_untrusted,
    list_item,
)
from overlay.wire.certificate import Certificate
from overlay.wire.cluster import Cluster
from overlay.wire.items import Item


class Standing(StrEnum):
    """What an authority is to the cluster. Unknown ones have none."""

    TRUSTED = "trusted"
    IN_USE = "in-use"
    REMOVED = "removed"


_STANDINGS: Final = {
    Act.INSTALL: Standing.TRUSTED,
    Act.USE: Standing.IN_USE,
    Act.REMOVE: Standing.REMOVED,
}


class Authority(NamedTuple):
    """One authority of the list."""

    key: bytes
    """Its public key, 32 bytes."""
    standing: Standing
    since: int
    """Unix seconds of the last link about it; of the founding, if there is none."""


class ForkError(AuthError):
    """A valid list that does not continue the one that is held.

    Attributes:
        link: the first in which it differs.
    """

    def __init__(self, message: str, link: Link) -> None:
        super().__init__(message, DropReason.BAD_CERTIFICATE)
        self.link = link


@dataclass(frozen=True, slots=True)
class Trust:
    """One state of the list. What changes it returns another one. Begin with `founded`."""

    cluster: Cluster
    links: tuple[Link, ...]
    """Every change since the founding."""
    digests: tuple[bytes, ...]
    """Of the cluster's description, and of each link."""
    in_use: bytes
    """Public key of the authority that signs new certificates."""
    authorities: Mapping[bytes, Authority]
    """All that there ever were, by public key, in the order in which they were installed."""
    kept: Mapping[bytes, frozenset[bytes]]
    """Of each removed one, digests of what it said and still counts."""

    @classmethod
    def founded(cls, cluster: Cluster) -> Trust:
        """The list at the founding: one authority, in use."""
        first = Authority(cluster.authority, Standing.IN_USE, cluster.created)
        digests = (digest_of(cluster.encode()),)
        return cls(cluster, (), digests, first.key, {first.key: first}, {})

    # -- what it says --------------------------------------------------------------------------

    @property
    def fingerprint(self) -> bytes:
        """16 bytes that name the list: of the first authority's key, or of the last link."""
        return self.fingerprints()[-1]

    def fingerprints(self) -> tuple[bytes, ...]:
        """The fingerprints that the list had from the founding on, the present one last."""
        return (self.cluster.authority_fingerprint, *self.digests[1:])

    def trusts(self, key: bytes) -> bool:
        """Whether what this authority signs counts."""
        return self.standing(key) in (Standing.TRUSTED, Standing.IN_USE)

    def standing(self, key: bytes) -> Standing | None:
        """What an authority is to the cluster; None for one that is unknown."""
        known = self.authorities.get(key)
        return None if known is None else known.standing

    def states(self) -> tuple[Authority, ...]:
        """Every authority there was, in the order in which they were installed."""
        return tuple(self.authorities.values())

    def stands(self, signer: bytes, content: bytes) -> bool:
        """Whether a statement counts: its signer is trusted, or its removal let this one stand.

        Args:
            signer: public key of the authority that signed it.
            content: what was signed.
        """
        return self.trusts(signer) or digest_of(content) in self.kept.get(signer, ())

    def check_certificate(self, certificate: Certificate, wall: float) -> None:
        """Check that a certificate proves membership at `wall` (Unix seconds).

        Raises:
            AuthError: it does not (BAD_CERTIFICATE); the message says why. Nothing else.
        """
        certificate.verify_signature(self.cluster)
        self.check_issuer(certificate)
        certificate.check_time(wall)

    def check_issuer(self, certificate: Certificate) -> None:
        """Check that the authority that a certificate names is trusted.

        Raises:
            AuthError: it is not (BAD_CERTIFICATE). Nothing else.
        """
        if not self.trusts(certificate.issuer):
            why = f"the certificate of {certificate.name} is by an authority that is not trusted"
            raise _bad(why)

    def item(self) -> Item:
        """The gossip item that shows this list.

        Raises:
            StateError: nothing has changed since the founding: there is none. Nothing else.
        """
        if not self.links:
            raise StateError("a list without links is not gossiped")
        return list_item(self.links)

    # -- how it changes ------------------------------------------------------------------------

    def extended(self, link: Link) -> Trust:
        """This list and one link more.

        Raises:
            AuthError: the link is not the next one of this list, is not by an authority that is
                trusted, or does what cannot be done now (BAD_CERTIFICATE).
            ForgedError: its signer has not signed it. Nothing else.
        """
        what = f"link {link.number} of the authorities"
        place = (link.cluster, link.number, link.previous)
        if place != (self.cluster.id, len(self.links) + 1, self.digests[-1]):
            raise _bad(f"{what} is not the next one")
        if not self.trusts(link.signer):
            raise _bad(f"{what} is not by one of them")
        needed = None if link.act is Act.INSTALL else Standing.TRUSTED
        if self.standing(link.key) is not needed:
            raise _bad(f"{what} does what cannot be done")
        if not link.is_signed():
            raise ForgedError(f"{what} has a wrong signature", Fault.FORGED_LINK)
        return self.followed_by(link)

    def extend_untrusted(self, item: Item) -> Trust:
        """The list in an item, if it continues this one.

        Raises:
            WireError: the item is not the shape of a list.
            ForkError: it is valid, but does not continue this one.
            AuthError: it proves nothing, or nothing new. Nothing else.
        """
        links = links_untrusted(item)
        shared = sum(1 for _ in _shared(self.links, links))
        if shared == len(links):
            raise _bad("a list of authorities that is known already")
        trust = self._first(shared)
        for link in links[shared:]:
            trust = trust.extended(link)
        if shared < len(self.links):
            why = f"another list of authorities, which parts from ours at link {shared + 1}"
            raise ForkError(why, links[shared])
        return trust

    def followed_by(self, link: Link) -> Trust:
        """This list and a link that `extended` has let pass before."""
        authorities, in_use, kept = dict(self.authorities), self.in_use, dict(self.kept)
        if link.act is Act.USE:
            was = authorities[in_use]
            authorities[in_use] = was._replace(standing=Standing.TRUSTED, since=link.time)
            in_use = link.key
        elif link.act is Act.REMOVE:
            kept[link.key] = link.statements()
        authorities[link.key] = Authority(link.key, _STANDINGS[link.act], link.time)
        return replace(
            self,
            links=(*self.links, link),
            digests=(*self.digests, link.digest),
            in_use=in_use,
            authorities=authorities,
            kept=kept,
        )

    def _first(self, count: int) -> Trust:
        """As it was after `count` of its links, which were checked."""
        if count == len(self.links):
            return self
        return reduce(Trust.followed_by, self.links[:count], Trust.founded(self.cluster))


def stored_trust(items: Iterable[Item], cluster: Cluster) -> Trust:
    """The list that is among stored items; as at the founding, if there is none that holds."""
    trust = Trust.founded(cluster)
    for item in items:
        if item.key == AUTHORITIES_KEY:
            try:
                return trust.extend_untrusted(item)
            except (WireError, AuthError):
                break
    return trust


def continued_trust(trust: Trust, items: Iterable[Item]) -> Trust:
    """A list, gone on with by one among items from elsewhere; the same if they know no more of it.

    Raises:
        WireError: the item is not the shape of a list.
        AuthError: it is longer, and does not hold or does not continue this one. Nothing else.
    """
    for item in items:
        if item.key == AUTHORITIES_KEY and item.version > len(trust.links):
            trust = trust.extend_untrusted(item)
    return trust


def pinned_trust(items: Iterable[Item], cluster: Cluster, pinned: bytes) -> Trust:
    """The list among items from elsewhere, if it is the pinned one or continues it.

    Args:
        items: the list of authorities, and others; without one, the list is as at the founding.
        cluster: whose; its description was verified.
        pinned: fingerprint of the list that somebody trustworthy had.

    Raises:
        WireError: the item is not the shape of a list.
        AuthError: it does not hold, or is another list. Nothing else.
    """
    trust = Trust.founded(cluster)
    for item in items:
        if item.key == AUTHORITIES_KEY:
            trust = trust.extend_untrusted(item)
    if pinned not in trust.fingerprints():
        raise _bad("the cluster's authorities are not those that were pinned")
    return trust


def _shared(ours: tuple[Link, ...], theirs: tuple[Link, ...]) -> Iterator[Link]:
    """The links at the front that are the same in both."""
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            return
        yield one


def _bad(message: str) -> AuthError:
    return AuthError(message, DropReason.BAD_CERTIFICATE)
