"""Reads what is the machine's own: routes, addresses and links that are not ours.

It is read every few seconds, and most of what the kernel tells then is ours, so it is told apart
before it is taken apart. What is asked for seldom, such as rules, goes through pyroute2.

References:
    rtnetlink(7); netlink(7) for strict checking and extended acknowledgements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from socket import AF_INET, AF_INET6
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

from node.errors import NodeError
from node.kernel import messages, packed
from node.kernel.errors import KernelError
from node.kernel.model import LinkAddress
from node.kernel.overlap import HostRoute
from node.kernel.reader import DUMP_TRIES, Reader
from overlay.types import Address, Prefix


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn what the kernel answers into a KernelError that says what was being done."""
    try:
        yield
    except NetlinkError as error:
        raise KernelError(*_clauses(doing, error)) from error
    except OSError as error:
        raise KernelError.of(doing, error) from error


def _clauses(doing: str, error: NetlinkError) -> tuple[str, str, str]:
    known = NodeError.of(doing, OSError(error.code, ""))
    # With extended acknowledgements the kernel says more than the error's name, when it can.
    why = str(error.args[-1]).rstrip(".")
    return f"{doing}: {why[:1].lower()}{why[1:]}", known.fix, known.code


class Survey:
    """A netlink socket to one network namespace, to look around with.

    Sockets are opened when they are needed, in the namespace that the thread is in then: pyroute2's
    costs some milliseconds, and most of what is made of this class needs none.
    """

    def __init__(self) -> None:
        self._opened: Any = None
        self._reader: Reader | None = None

    @property
    def _ipr(self) -> Any:  # noqa: ANN401 - pyroute2 has no types
        if self._opened is None:
            self._opened = IPRoute(ext_ack=True, strict_check=True)
        return self._opened

    @property
    def _raw(self) -> Reader:
        if self._reader is None:
            self._reader = Reader()
        return self._reader

    def close(self) -> None:
        """Close the sockets, and pyroute2's private loop. Twice is fine."""
        if self._reader is not None:
            self._reader.close()
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _dump(self, request: Callable[..., Iterable[Any]], **filters: int) -> list[Any]:
        for _ in range(DUMP_TRIES - 1):
            try:
                return list(request(**filters))
            except NetlinkDumpInterrupted:
                continue
        return list(request(**filters))

    def _addresses(self, names: dict[int, str]) -> Iterator[packed.HeldAddress]:
        for message in self._raw.addresses():
            yield packed.parse_held(message, names)

    def host_routes(self) -> list[HostRoute]:
        """All routes but our own that packets of this machine may take, default routes included.

        Those of the main table, and of the tables that a rule leads any packet to: VPNs keep theirs
        in such.

        Raises:
            KernelError: the kernel did not answer. Nothing else.
        """
        with explained("reading the routes"):
            names = _names(self._raw.links())
            return [
                packed.parse_host_route(message, names)
                for family in (AF_INET, AF_INET6)
                for table in self._tables(family)
                for message in self._raw.routes(family, table)
                if not packed.is_own_route(message)
            ]

    def _tables(self, family: int) -> list[int]:
        rules = self._dump(self._ipr.get_rules, family=family)
        return messages.consulted_tables(rules)

    def held_prefixes(self) -> frozenset[Prefix]:
        """What the kernel takes for the machine's own: its addresses, loopback's range among them.

        It is what `fib daddr type local` of a packet filter asks, in the same table.

        Raises:
            KernelError: the kernel did not answer. Nothing else.
        """
        with explained("reading the machine's own addresses"):
            return frozenset(
                packed.parse_host_route(message, {}).prefix
                for family in (AF_INET, AF_INET6)
                for message in self._raw.routes(family, messages.RT_TABLE_LOCAL)
                if packed.is_local_route(message)
            )

    def local_addresses(self, exclude: Sequence[Prefix] = ()) -> list[Address]:
        """Addresses at which other machines may reach this one, the most likely first.

        That is the addresses of the links with default routes, then those of other links. Left
        out: loopback, link-local, temporary and not (yet) usable addresses.

        Args:
            exclude: the overlay's ranges. An address inside an overlay is never an endpoint.

        Raises:
            KernelError: the kernel did not answer. Nothing else.
        """
        leading_out = {
            (route.link, route.prefix.version)
            for route in self.host_routes()
            if route.prefix.prefixlen == 0 and route.table == messages.RT_TABLE_MAIN
        }
        found = [held for held, _ in self._for_peers(exclude)]
        found.sort(key=lambda held: (held.link, held.address.version) not in leading_out)
        return [held.address.ip for held in found]

    def underlay_mtu(self, exclude: Sequence[Prefix] = ()) -> int | None:
        """The largest MTU of the links that have `local_addresses`; None without any.

        Raises:
            KernelError: the kernel did not answer. Nothing else.
        """
        return max((mtu for _, mtu in self._for_peers(exclude)), default=None)

    def _for_peers(self, exclude: Sequence[Prefix]) -> list[tuple[LinkAddress, int]]:
        """Addresses others may use, each with the MTU of its link."""
        with explained("reading the addresses"):
            links = [one for one in self._raw.links() if one.link.up and not one.loopback]
            mtus = {one.link.name: one.link.mtu or 0 for one in links}
            held = [held for held, usable in self._addresses(_names(links)) if usable]
        return [
            (each, mtus[each.link])
            for each in held
            if each.link and not any(each.address.ip in prefix for prefix in exclude)
        ]


def _names(links: Iterable[packed.HeldLink]) -> dict[int, str]:
    return {one.index: one.link.name for one in links}
