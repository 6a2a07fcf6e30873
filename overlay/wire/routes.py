"""Lists of outside prefixes, as certificates and records carry them.

    [prefix, ...]    prefix: network address 4 or 16, then one byte of prefix length

At most `ROUTES_MAX`, in ascending order of these bytes, each once, host bits zero. A default route
is never among them: it would take every packet that has no better route, so no node may ever ask
for all of them. Nor is a part of the cluster's own ranges, whose routes come from deeds alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network
from itertools import pairwise
from typing import Final

from overlay.errors import ConfigError, WireError
from overlay.types import Prefix
from overlay.wire.cluster import Cluster, pack_network, unpack_prefix
from overlay.wire.packing import Fields

# -- specification ---------------------------------------------------------------------------------

ROUTES_MAX: Final = 8
"""Prefixes of one node. They travel in its certificate, so in each initiation of its."""

_PACKED_MAX: Final = 17


def sort_routes(prefixes: Iterable[Prefix]) -> tuple[Prefix, ...]:
    """`prefixes` in the order in which they are written, each once.

    Raises:
        ConfigError: more than `ROUTES_MAX`, or a default route. Nothing else.

    >>> sort_routes([IPv4Network("192.168.0.0/16"), IPv4Network("10.0.0.0/8")])
    (IPv4Network('10.0.0.0/8'), IPv4Network('192.168.0.0/16'))
    """
    routes = tuple(sorted(set(prefixes), key=pack_network))
    if len(routes) > ROUTES_MAX:
        raise ConfigError(f"{len(routes)} outside routes: {ROUTES_MAX} is the most")
    for prefix in routes:
        if prefix.prefixlen == 0:
            raise ConfigError(f"{prefix} is a default route, which no node may have")
    return routes


def check_outside(routes: Iterable[Prefix], cluster: Cluster) -> None:
    """Whether `routes` lie outside the cluster.

    Raises:
        ConfigError: one overlaps its ranges. Nothing else.
    """
    for prefix in routes:
        own = cluster.cidr if isinstance(prefix, IPv4Network) else cluster.cidr6
        if own is not None and prefix.overlaps(own):
            raise ConfigError(f"{prefix} overlaps the cluster's own range {own}")


def pack_routes(routes: Sequence[Prefix]) -> list[bytes]:
    """The array that `routes_untrusted` reads."""
    return [pack_network(prefix) for prefix in routes]


def routes_untrusted(fields: Fields, index: int) -> tuple[Prefix, ...]:
    """Read field `index`.

    Raises:
        WireError: no such array, or in another order than `sort_routes` gives. Nothing else.
    """
    packed = _packed(fields, index)
    routes = tuple(unpack_prefix(data) for data in packed)
    if any(prefix.prefixlen == 0 for prefix in routes):
        raise WireError("routes: a default route")
    if any(first >= second for first, second in pairwise(packed)):
        raise WireError("routes: not in ascending order")
    return routes


def advertised_untrusted(fields: Fields, index: int) -> tuple[Prefix, ...]:
    """Read field `index`, a node's own word: any prefixes in any order, each once.

    A default route may be among them: who advertises what it must not is to be named for it, and
    what else it says holds.

    Raises:
        WireError: no such array, or one prefix twice. Nothing else.
    """
    packed = _packed(fields, index)
    if len(frozenset(packed)) != len(packed):
        raise WireError("routes: one occurs twice")
    return tuple(unpack_prefix(data) for data in packed)


def _packed(fields: Fields, index: int) -> list[bytes]:
    values = Fields(fields.sequence(index, ROUTES_MAX), "routes")
    return [values.bytes(place, limit=_PACKED_MAX) for place in range(len(values))]
