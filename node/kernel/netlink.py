"""Reads and changes kernel state over netlink.

Everything here blocks for fractions of a millisecond and belongs into the netlink thread (see
`node.kernel.thread`). A `Netlink` works in the network namespace of the thread that made it.

What is the machine's own is read by its base class. What is done for every pod goes through
`node.kernel.reader` and `node.kernel.writer`; the rest, which is seldom, through pyroute2: here, in
the base class and in `queues`, which is handed the socket.

pyroute2 speaks through a private asyncio loop. Its loop must be a plain one, and no loop may run
in the calling thread; both hold in the netlink thread and in the threads of `netns.run_in`.

References:
    rtnetlink(7); netlink(7) for strict checking and extended acknowledgements.
    pyroute2 issue 1335, uvloop issue 676: why not in the daemon's loop.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Collection, Iterable
from socket import AF_INET, AF_INET6, if_nameindex
from typing import Final, Self, assert_never

from pyroute2.netlink.exceptions import NetlinkError

from node.kernel import messages, packed, queues, writer
from node.kernel.model import KernelState, Link, Route
from node.kernel.reader import SYSCTL_ROOT, Ours
from node.kernel.reconcile import (
    AddAddress,
    AddNeighbour,
    AddressingChange,
    AddRoute,
    Change,
    DeleteAddress,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    LimitChange,
    RenameLink,
    SetLink,
    SetSysctl,
)
from node.kernel.survey import Survey, explained
from overlay.types import Address

_NOTICED_WITHIN: Final = 1.0
"""Seconds for the kernel to notice that the other end of a link is up."""

_LOOK: Final = 0.001

_ALREADY_DONE: Final[dict[type[Change], tuple[int, ...]]] = {
    AddAddress: (errno.EEXIST,),
    DeleteAddress: (errno.EADDRNOTAVAIL, errno.ENODEV),
    DeleteLink: (errno.ENODEV,),
    DeleteNeighbour: (errno.ENOENT, errno.ENODEV),
    DeleteRoute: (errno.ESRCH, errno.ENODEV),
}
"""Kernel answers that mean: somebody else was faster, the result is what was wanted."""


class Netlink(Survey):
    """A netlink socket to one network namespace. Use it in the thread that made it.

    Error contract: a `KernelError` leaves the object usable; what was done before it stays done.
    """

    def __init__(self) -> None:
        super().__init__()
        with explained("opening a netlink socket"):
            self._writer = writer.Writer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        self._writer.close()
        super().close()

    # -- reading ------------------------------------------------------------------------------

    def read(self, ours: Ours, sysctls: Iterable[str]) -> KernelState:
        """The actual state: links that are `ours`, what is on them, our routes.

        Args:
            ours: tells our links by name and kind.
            sysctls: the settings to read, as paths below /proc/sys.

        Raises:
            KernelError: the kernel did not answer. Nothing else.
        """
        with explained("reading the kernel's state"):
            return self._raw.read(ours, sysctls)

    # -- changing -----------------------------------------------------------------------------

    def apply(self, change: Change) -> None:
        """Do one change. One that somebody else has done already counts as done.

        Raises:
            KernelError: the kernel refused. Nothing else.
        """
        with explained(str(change)):
            try:
                if isinstance(change, LimitChange):
                    queues.apply_limit(self._ipr, change, self._index_of)
                else:
                    self._apply(change)
            except NetlinkError as error:
                if error.code not in _ALREADY_DONE.get(type(change), ()):
                    raise

    def _apply(self, change: AddressingChange) -> None:
        ask = self._writer.ask
        match change:
            case DeleteLink(name):
                index = self._known_index(name)
                self._forget(name)
                ask(writer.RTM_DELLINK, writer.numbered(index))
            case RenameLink(present, name):
                self._rename(present, name)
            case SetSysctl(path, value):
                (SYSCTL_ROOT / path).write_text(value)
            case SetLink(link):
                ask(writer.RTM_NEWLINK, writer.link_set(link, self._known_index(link.name)))
            case AddNeighbour(one):
                body = writer.neighbour_on(one, self._known_index(one.link))
                ask(writer.RTM_NEWNEIGH, body, writer.REPLACE)
            case DeleteNeighbour(one):
                ask(writer.RTM_DELNEIGH, writer.neighbour_on(one, self._known_index(one.link)))
            case _:
                self._apply_to_addresses(change)

    def _apply_to_addresses(
        self, change: AddAddress | DeleteAddress | AddRoute | DeleteRoute
    ) -> None:
        ask = self._writer.ask
        match change:
            case AddAddress(held):
                body = writer.address_on(held, self._known_index(held.link))
                ask(writer.RTM_NEWADDR, body, writer.NEW)
            case DeleteAddress(held):
                ask(writer.RTM_DELADDR, writer.address_on(held, self._known_index(held.link)))
            case AddRoute(route, replaces):
                flags = writer.REPLACE if replaces else writer.NEW
                ask(writer.RTM_NEWROUTE, writer.route_by(route, self._by(route)), flags)
            case DeleteRoute(route):
                body = writer.route_by(route, self._by(route), any_scope=True)
                ask(writer.RTM_DELROUTE, body)
            case _:
                assert_never(change)

    def _rename(self, present: str, name: str) -> None:
        index = self._index(present)
        renamed = writer.link_renamed(index, name)
        try:
            self._writer.ask(writer.RTM_NEWLINK, renamed)
        except NetlinkError:  # kernels before 6.2 rename only links that are down
            self._writer.ask(writer.RTM_NEWLINK, writer.link_down(index))
            self._writer.ask(writer.RTM_NEWLINK, renamed)

    def _by(self, route: Route) -> int | None:
        return self._known_index(route.link) if route.link else None

    def _known_index(self, name: str) -> int:
        # Whoever changes things has just read them. A link that somebody made anew since has
        # another index: the change fails, and the next comparison tells.
        known = self._reader.index(name) if self._reader is not None else None
        return self._index(name) if known is None else known

    def _forget(self, name: str) -> None:
        if self._reader is not None:
            self._reader.forget(name)

    def _index_of(self, name: str) -> int | None:
        try:
            return self._index(name)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise

    def _index(self, name: str) -> int:
        return packed.parse_link(self._writer.ask(writer.RTM_GETLINK, writer.named(name))).index

    # -- veths --------------------------------------------------------------------------------

    def create_veth(self, link: Link, peer: Link, namespace: int | None = None) -> None:
        """Make a veth whose other end, `peer`, appears in the namespace behind a descriptor.

        One message makes both ends, so neither exists when it fails. Without a namespace both
        appear here.

        Raises:
            KernelError: it exists, or the peer's name is taken there. Nothing else.
        """
        with explained(f"making the veth {link.name}"):
            self._forget(link.name)
            self._writer.ask(writer.RTM_NEWLINK, writer.veth(link, peer, namespace), writer.NEW)

    def wait_until_running(self, name: str) -> None:
        """Wait until a link sends, after its other end has come up.

        The kernel drops what is sent on the end that was up first until a worker of its own has
        noticed, which takes long on a busy machine. From Linux 6.8 on, to ask makes it notice.

        Raises:
            KernelError: there is no such link, or the kernel does not answer. Nothing else.
        """
        with explained(f"waiting for link {name}"):
            deadline = time.monotonic() + _NOTICED_WITHIN
            question = writer.RTM_GETLINK, writer.named(name)
            while not packed.is_running(self._writer.ask(*question)):
                if time.monotonic() > deadline:
                    return  # its other end is down again
                time.sleep(_LOOK)

    def delete_links(self, names: Collection[str]) -> None:
        """Remove links together: the kernel waits once, some 25 ms, and not for each of them.

        Those that are not there are fine. The group that they are put in for that is a new one
        each time: should this end half-way, nothing is ever removed by it.

        Raises:
            KernelError: the kernel refused; some may be gone. Nothing else.
        """
        group = int.from_bytes(os.urandom(4)) | 1 << 31
        with explained("removing links"):
            found = [index for name in names if (index := self._index_of(name)) is not None]
            for index in found if len(found) > 1 else ():
                self._writer.ask(writer.RTM_NEWLINK, writer.grouped(index, group))
            if len(found) == 1:
                self._writer.ask(writer.RTM_DELLINK, writer.numbered(found[0]))
            elif found:
                self._writer.ask(writer.RTM_DELLINK, writer.grouped(0, group))
        for name in names:
            self._forget(name)

    def create_bridge(self, name: str, ports: Iterable[str]) -> None:
        """Make a bridge that forwards from the first frame on, and bring it up with its ports.

        Raises:
            KernelError: it exists, or a port is missing. Nothing else.
        """
        with explained(f"making the bridge {name}"):
            # No spanning tree and no snooping: both hold back frames of a fresh port for a while.
            quick = {"br_stp_state": 0, "br_forward_delay": 0, "br_mcast_snooping": 0}
            self._ipr.link("add", ifname=name, kind="bridge", **quick)
            bridge = self._index(name)
            for port in ports:
                self._ipr.link("set", index=self._index(port), master=bridge, state="up")
            self._ipr.link("set", index=bridge, state="up")

    def default_links(self) -> set[tuple[int, str]]:
        """IP version and link of every default route of the main table, whoever made it.

        Raises:
            KernelError: the kernel did not answer. Nothing else.
        """
        with explained("reading the routes"):
            names = dict(if_nameindex())
            found = [
                packed.parse_host_route(message, names)
                for family in (AF_INET, AF_INET6)
                for message in self._raw.routes(family, messages.RT_TABLE_MAIN)
            ]
        return {(one.prefix.version, one.link) for one in found if not one.prefix.prefixlen}

    def lead_back(self, address: Address, link: str, gateway: Address) -> None:
        """Let what has `address` as source leave by `link`, whatever the main table says.

        A table for the link, with its way out, and a rule that leads there. Doing it twice is fine;
        rules for addresses that are not here any more are taken away.

        Raises:
            KernelError: the kernel refused. Nothing else.
        """
        with explained(f"leading {address} back by {link}"):
            here = {held.address.ip for held, _ in self._addresses({})}
            held = self._own_rules(address.version)
            for source, table in held:
                if source not in here:
                    self._ipr.rule("del", **messages.rule_request(source, table))
            wanted = address, messages.table_of(link)
            for route in messages.way_back(gateway, self._index(link), wanted[1]):
                self._ipr.route("replace", **route)
            if wanted not in held:
                self._ipr.rule("add", **messages.rule_request(*wanted))

    def leads_back(self, address: Address, link: str) -> bool:
        """Whether a rule leads what has `address` as source to the table for `link`.

        Raises:
            KernelError: the kernel did not answer. Nothing else.
        """
        with explained(f"looking where {address} is led"):
            return (address, messages.table_of(link)) in self._own_rules(address.version)

    def _own_rules(self, version: int) -> set[tuple[Address, int]]:
        rules = self._dump(self._ipr.get_rules, family=messages.FAMILIES[version])
        return {rule for one in rules if (rule := messages.own_rule(one)) is not None}

    def link_index(self, name: str) -> int | None:
        """The index of a link; None if there is none of that name.

        Raises:
            KernelError: the kernel did not answer. Nothing else.
        """
        with explained(f"looking for link {name}"):
            return self._index_of(name)

    def link_facts(self, name: str) -> messages.LinkFacts | None:
        """What a link is; None if there is none of that name.

        Raises:
            KernelError: the kernel did not answer. Nothing else.
        """
        with explained(f"looking for link {name}"):
            try:
                (message,) = self._ipr.link("get", ifname=name)
            except NetlinkError as error:
                if error.code == errno.ENODEV:
                    return None
                raise
            return messages.parse_facts(message)

    def set_alias(self, name: str, alias: str) -> None:
        """Give a link a text of ours.

        Raises:
            KernelError: the kernel refused, or the link is gone. Nothing else.
        """
        with explained(f"naming link {name}"):
            self._ipr.link("set", index=self._index(name), ifalias=alias)

    def peer_index(self, name: str, namespace: int) -> int | None:
        """The index of a veth's other end, if that is in the namespace behind a descriptor.

        Raises:
            KernelError: the kernel did not answer. Nothing else.
        """
        ask = self._writer.ask
        with explained(f"looking for the other end of {name}"):
            try:
                link = packed.parse_link(ask(writer.RTM_GETLINK, writer.named(name)))
            except NetlinkError as error:
                if error.code == errno.ENODEV:
                    return None
                raise
            there = packed.parse_namespace(ask(writer.RTM_GETNSID, writer.namespace(namespace)))
            return link.peer if link.namespace == there else None
