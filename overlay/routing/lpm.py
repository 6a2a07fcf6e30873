"""Longest-prefix match made fast: one dict per prefix length, and a cache in front.

The prefixes of a cluster have very few different lengths (all blocks have one), so hashing the
masked address once per length beats walking a trie bit by bit in Python:

    lookup(10.244.3.9)   /32  {..}                   miss
                         /24  {10.244.3.0: node C}   hit
                         /16  (never looked at)

An entry's key is the very number that its prefix begins with: where prefixes are shared, as the
nodes of one process do it, so are the keys.

The work grows with the number of distinct lengths, not of prefixes. A dict of whole addresses in
front makes it independent of both: measured on CPython 3.11, 0.08 us for a cached address whatever
the table, against 0.15 us for one length and 0.43 us for six without the cache.

References:
    Waldvogel, Varghese, Turner, Plattner: Scalable High Speed IP Routing Lookups (1997), which
    searches the lengths by bisection; with two or three of them a linear search is shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Generic, TypeVar

from overlay.types import Prefix

Target = TypeVar("Target")
Answer = TypeVar("Answer")
Place = tuple[int, int]
"""Length and first address of a prefix."""

IPV4_BITS: Final = 32
IPV6_BITS: Final = 128

CACHE_SIZE: Final = 4096
"""Addresses remembered before the cache starts afresh (about 0.5 MB). Only hits are kept: packets
to addresses that nobody owns are dropped anyway, and a scan of them should not displace the
others."""


class LongestPrefixMatch(Generic[Target, Answer]):
    """Prefixes of one address family and their targets. A target is never None.

    Args:
        bits: of an address: `IPV4_BITS` or `IPV6_BITS`.
        answer: what of its target a lookup returns; never None. It is remembered with the address,
            so that a lookup in the cache returns it at once.
    """

    __slots__ = ("_answer", "_bits", "_cache", "_dicts", "_levels")

    def __init__(self, bits: int, answer: Callable[[Target], Answer]) -> None:
        self._bits = bits
        self._answer = answer
        self._dicts: dict[int, dict[int, Target]] = {}  # prefix length -> first address -> target
        self._levels: tuple[tuple[int, dict[int, Target]], ...] = ()  # (mask, dict), longest first
        self._cache: dict[int, Answer] = {}

    def lookup(self, address: int) -> Answer | None:
        """The answer of the longest prefix that contains `address`; None if none does."""
        answer = self._cache.get(address)
        return answer if answer is not None else self._search(address)

    def _search(self, address: int) -> Answer | None:
        for mask, level in self._levels:
            target = level.get(address & mask)
            if target is not None:
                if len(self._cache) >= CACHE_SIZE:
                    self._cache.clear()
                answer = self._cache[address] = self._answer(target)
                return answer
        return None

    def get(self, prefix: Prefix) -> Target | None:
        """The target of exactly this prefix."""
        level = self._dicts.get(prefix.prefixlen)
        return None if level is None else level.get(int(prefix.network_address))

    def insert(self, prefix: Prefix, target: Target) -> None:
        """Add a prefix, or change its target."""
        self._put(prefix, target)
        self._rebuild()

    def remove(self, prefix: Prefix) -> None:
        """Forget a prefix; nothing happens if it is not there."""
        self._drop(prefix)
        self._rebuild()

    def update(self, added: Iterable[tuple[Prefix, Target]], removed: Iterable[Prefix]) -> None:
        """Forget `removed`, then add `added`, or change their targets."""
        for prefix in removed:
            self._drop(prefix)
        for prefix, target in added:
            self._put(prefix, target)
        self._rebuild()

    def items(self) -> Iterator[tuple[Prefix, Target]]:
        """All prefixes and their targets, longest first, then by address."""
        for length in sorted(self._dicts, reverse=True):
            for first in sorted(self._dicts[length]):
                yield self.at((length, first))

    def places(self) -> Iterator[Place]:
        """Where targets are, in any order; unlike prefixes they cost next to nothing."""
        for length, level in self._dicts.items():
            for first in level:
                yield length, first

    def at(self, place: Place) -> tuple[Prefix, Target]:
        """The prefix at one of the `places`, and its target."""
        length, first = place
        network = IPv4Network if self._bits == IPV4_BITS else IPv6Network
        return network((first, length)), self._dicts[length][first]

    def first_at(self, place: Place) -> tuple[int, Target]:
        """The first address that the prefix at one of the `places` contains, and its target."""
        length, first = place
        return first, self._dicts[length][first]

    def __len__(self) -> int:
        return sum(len(level) for level in self._dicts.values())

    def _put(self, prefix: Prefix, target: Target) -> None:
        self._dicts.setdefault(prefix.prefixlen, {})[int(prefix.network_address)] = target

    def _drop(self, prefix: Prefix) -> None:
        level = self._dicts.get(prefix.prefixlen, {})
        level.pop(int(prefix.network_address), None)
        if not level:
            self._dicts.pop(prefix.prefixlen, None)

    def _rebuild(self) -> None:
        self._cache.clear()
        self._levels = tuple(
            ((1 << self._bits) - (1 << self._bits - length), self._dicts[length])
            for length in sorted(self._dicts, reverse=True)
        )

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        masks = [mask for mask, _ in self._levels]
        assert masks == sorted(set(masks), reverse=True)
        assert all(level for _, level in self._levels), "an empty level costs every lookup"
        assert len(self._cache) <= CACHE_SIZE
        for address, answer in self._cache.items():
            first = next(
                level[address & mask] for mask, level in self._levels if address & mask in level
            )
            assert self._answer(first) is answer, "the cache disagrees with the levels"
