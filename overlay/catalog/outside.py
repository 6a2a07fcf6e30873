"""Outside routes: which of the prefixes that members advertise are in force.

A node may take packets to a network behind it, such as a LAN, if the authority consented in its
certificate. Its word alone is worth nothing, so every member decides for itself, from records and
certificates, and all that know the same decide alike:

    record: routes --> reserved? -----> consent? ------> underlay? ----> another's? --> in force
                           |               |                 |               |
                    route-forbidden  route-not-certified  route-forbidden  route-taken

A prefix that is refused is left out by itself; the rest of the record holds. The third question
depends on where the members are reached from here; `overlay.outside` puts it.

Two nodes, one place. Consent decides: the narrower part of the network the authority named for a
node, the more it is that node's. So nobody takes a part of what another advertises unless the
authority gave him a part of just that; of two with the same consent for the same prefix the lower
node id has it on every member. The other one's stays refused, and is shown, also while the first is
dead: a route that moves by itself between two machines is not what was asked for.

References:
    RFC 6890: addresses with a special purpose. RFC 7454, section 6: what not to take from a
    neighbour in BGP: default routes, one's own prefixes, more specific ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Final, NamedTuple

from overlay.catalog.records import NodeRecord
from overlay.errors import ConfigError
from overlay.types import Endpoint, NodeId, Prefix
from overlay.wire.cluster import Cluster
from overlay.wire.routes import sort_routes

NOT_CERTIFIED: Final = "route-not-certified"
FORBIDDEN: Final = "route-forbidden"
TAKEN: Final = "route-taken"

SHORTEST6: Final = 7
"""Least length of an IPv6 prefix: 2000::/3 is all of the Internet, fc00::/7 a private network. For
IPv4 the special ranges see to it: every prefix shorter than /3 contains one."""

_NAMED: Final[dict[str, str]] = {
    "0.0.0.0/8": "addresses of no network",
    "127.0.0.0/8": "the loopback",
    "169.254.0.0/16": "link-local addresses",
    "224.0.0.0/3": "groups and reserved addresses",
    "::/16": "addresses of no network",
    "fe80::/10": "link-local addresses",
    "ff00::/8": "groups",
}
SPECIAL: Final[list[tuple[Prefix, str]]] = [(ip_network(one), what) for one, what in _NAMED.items()]
"""Ranges that mean something else on every machine."""


class Heard:
    """Whether what members say of outside routes, and what counts against them, may have changed.

    While nobody advertises anything, nothing does: a record then costs next to nothing here.

    Attributes:
        generation: grows whenever it may have.
    """

    __slots__ = ("_advertise", "generation")

    def __init__(self) -> None:
        self.generation = 0
        self._advertise: set[NodeId] = set()

    def on_record(self, before: NodeRecord | None, record: NodeRecord) -> None:
        """A record took the place of `before`, the last one of that node that had an effect."""
        if record.routes:
            self._advertise.add(record.node)
        if self._advertise and (before is None or _said(before) != _said(record)):
            self.generation += 1
        if not record.routes:
            self._advertise.discard(record.node)

    def on_loss(self) -> None:
        """Records have lost their effect."""
        self.generation += bool(self._advertise)


def _said(record: NodeRecord) -> tuple[object, ...]:
    return record.routes, record.endpoints, record.certificate


class Offer(NamedTuple):
    """One prefix that a node advertises."""

    prefix: Prefix
    node: NodeId
    consent: Prefix | None
    """The narrowest prefix of its certificate that contains it; None if none does."""

    @property
    def weight(self) -> int:
        """How narrow the consent is; greater is more its own."""
        return -1 if self.consent is None else self.consent.prefixlen


class Refused(NamedTuple):
    """One prefix that is not in force, and why."""

    prefix: Prefix
    node: NodeId
    """Who advertises it."""
    code: str
    """`NOT_CERTIFIED`, `FORBIDDEN` or `TAKEN`."""
    why: str
    """A clause; with `TAKEN`, what `other` advertises."""
    other: NodeId | None = None
    """Whose route or underlay address stands against it."""


class Cover:
    """Finds those of a few prefixes that contain an address, widest first."""

    __slots__ = ("_lengths", "_prefixes")

    def __init__(self, prefixes: Iterable[Prefix] = ()) -> None:
        self._prefixes: dict[tuple[int, int, int], Prefix] = {}
        self._lengths: list[tuple[int, int]] = []
        for prefix in prefixes:
            self.add(prefix)

    def add(self, prefix: Prefix) -> None:
        """One prefix more."""
        version, length = prefix.version, prefix.prefixlen
        self._prefixes[version, length, int(prefix.network_address)] = prefix
        if (version, length) not in self._lengths:
            self._lengths = sorted([*self._lengths, (version, length)])

    def around(self, prefix: Prefix) -> Iterator[Prefix]:
        """Those that contain all of `prefix`, itself included."""
        first = int(prefix.network_address)
        return self._containing(prefix.version, first, prefix.prefixlen)

    def of_host(self, host: str) -> Iterator[Prefix]:
        """Those that contain a numeric address."""
        return self.of_number(*_number(host))

    def of_number(self, version: int, address: int) -> Iterator[Prefix]:
        """Those that contain an address of an IP version, as an integer."""
        return self._containing(version, address, 128)

    def _containing(self, version: int, number: int, longest: int) -> Iterator[Prefix]:
        bits = 32 if version == 4 else 128
        for family, length in self._lengths:
            if family == version and length <= longest:
                first = number >> (bits - length) << (bits - length)
                if (prefix := self._prefixes.get((version, length, first))) is not None:
                    yield prefix

    def __bool__(self) -> bool:
        return bool(self._prefixes)


@lru_cache(maxsize=1 << 13)
def _number(host: str) -> tuple[int, int]:
    address = ip_address(host)
    return address.version, int(address)


def consent_for(routes: Iterable[Prefix], prefix: Prefix) -> Prefix | None:
    """The narrowest of a certificate's `routes` that contains all of `prefix`; None if none does.

    >>> consent_for([ip_network("10.0.0.0/8")], ip_network("10.1.0.0/16"))
    IPv4Network('10.0.0.0/8')
    """
    return max(Cover(routes).around(prefix), key=lambda one: one.prefixlen, default=None)


def reserved_ranges(cluster: Cluster) -> tuple[tuple[Prefix, str], ...]:
    """What no node may advertise a part of, nor anything around it, each with its name.

    The one place for it: a cluster's description that has a service range adds it here.
    """
    own: list[Prefix] = [cluster.cidr] if cluster.cidr6 is None else [cluster.cidr, cluster.cidr6]
    return (*((prefix, "the cluster's own range") for prefix in own), *SPECIAL)


def forbidden(prefix: Prefix, cluster: Cluster) -> str:
    """Why nobody may advertise `prefix`, in one clause; empty if somebody may.

    What it depends on are the prefix and the cluster alone.
    """
    if prefix.prefixlen == 0:
        return "it is a default route"
    for reserved, what in reserved_ranges(cluster):
        if reserved.version == prefix.version and prefix.overlaps(reserved):
            return f"it overlaps {what} {reserved}"
    if prefix.version == 6 and prefix.prefixlen < SHORTEST6:
        return "it is as good as a default route"
    return ""


def check_consent(routes: Iterable[Prefix], cluster: Cluster) -> tuple[Prefix, ...]:
    """`routes` in the order of a certificate, if the authority may consent to them.

    Raises:
        ConfigError: they are too many, or nobody may advertise one of them. Nothing else.
    """
    for prefix in routes:
        if why := forbidden(prefix, cluster):
            raise ConfigError(f"{prefix} cannot be advertised: {why}")
    return sort_routes(routes)


def judge(offer: Offer, cluster: Cluster) -> Refused | None:
    """Whether the authority could consent, and did; None if so."""
    if why := forbidden(offer.prefix, cluster):
        return Refused(offer.prefix, offer.node, FORBIDDEN, why)
    if offer.consent is None:
        why = "its certificate does not allow it"
        return Refused(offer.prefix, offer.node, NOT_CERTIFIED, why)
    return None


def offer_of(node: NodeId, routes: Iterable[Prefix], prefix: Prefix) -> Offer:
    """What it is that `node` advertises; `routes` are those of its certificate."""
    return Offer(prefix, node, consent_for(routes, prefix))


def settle(offers: Iterable[Offer]) -> tuple[dict[Prefix, NodeId], list[Refused]]:
    """Which of these are in force beside each other, and which are not.

    Args:
        offers: with consent and otherwise faultless, in any order.
    """
    force: dict[Prefix, NodeId] = {}
    refused: list[Refused] = []
    cover = Cover()
    # Widest first: what an offer is measured against is decided then.
    for offer in sorted(offers, key=lambda one: (one.prefix.prefixlen, -one.weight, one.node)):
        against = [
            wide
            for wide in cover.around(offer.prefix)
            if force[wide] != offer.node and offer.weight <= wide.prefixlen
        ]
        if against:
            wide = against[-1]
            refused.append(Refused(offer.prefix, offer.node, TAKEN, str(wide), force[wide]))
        else:
            force[offer.prefix] = offer.node
            cover.add(offer.prefix)
    return force, refused


def announced(
    wanted: Iterable[Prefix], certified: Sequence[Prefix], cluster: Cluster
) -> tuple[Prefix, ...]:
    """Those of the `wanted` prefixes that a node with these `certified` ones may advertise."""
    offers = [offer_of(NodeId(b""), certified, prefix) for prefix in wanted]
    return tuple(offer.prefix for offer in offers if judge(offer, cluster) is None)


def outside_of(endpoints: Iterable[Endpoint], routes: Iterable[Prefix]) -> tuple[Endpoint, ...]:
    """Those of a node's underlay addresses that lie in none of the `routes` it advertises."""
    cover = Cover(routes)
    return tuple(one for one in endpoints if not any(cover.of_host(one.host)))
