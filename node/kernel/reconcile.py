"""From desired and actual state to the steps between, in an order the kernel accepts.

    1. links of pods that are gone      their addresses and routes go with them
    2. names of links                   everything else goes by them
    3. sysctls                          before links come up: they decide what `up` does
    4. link attributes, up last
    5. addresses                        a route's preferred source must exist
    6. routes, those without gateway first: they make the gateway reachable
    7. routes, then addresses that nobody wants any more
    8. neighbours                       a link that was down has none
    9. limits                           the links that pods' packets wait at come with them

Only what is ours appears in `actual`, so nothing else can be touched, with one exception: when
IPv6 forwarding is switched on, the kernel forgets default routes that it learned from router
advertisements, and ignores further ones, on every link with accept_ra=1. Such a link of the
machine gets accept_ra=2 first ("even when forwarding"), or the machine would lose its IPv6.

References:
    Linux Documentation/networking/ip-sysctl.rst, accept_ra.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from node.kernel.model import KernelState, Limit, Link, LinkAddress, Neighbour, Route, is_pod_link

_ATTRIBUTES: Final = ("mtu", "gso_max_size", "txqueuelen", "alias", "mac", "master")
"""Of a link."""

FORWARDING6: Final = "net/ipv6/conf/all/forwarding"


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """Remove a pod's veth; its other end goes with it."""

    name: str

    def __str__(self) -> str:
        return f"remove link {self.name}"


@dataclass(frozen=True, slots=True)
class RenameLink:
    """Give a link of ours its name back."""

    present: str
    name: str

    def __str__(self) -> str:
        return f"rename link {self.present} to {self.name}"


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Write one kernel setting. `path` is relative to /proc/sys."""

    path: str
    value: str

    def __str__(self) -> str:
        return f"set {self.path} to {self.value}"


@dataclass(frozen=True, slots=True)
class SetLink:
    """Give a link the attributes of `link` that are not None."""

    link: Link

    def __str__(self) -> str:
        return f"configure link {self.link.name}"


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Put an address on a link, usable at once (no duplicate address detection)."""

    address: LinkAddress

    def __str__(self) -> str:
        return f"add {self.address}"


@dataclass(frozen=True, slots=True)
class DeleteAddress:
    """Take an address off a link."""

    address: LinkAddress

    def __str__(self) -> str:
        return f"remove {self.address}"


@dataclass(frozen=True, slots=True)
class AddRoute:
    """Add a route. With `replaces`, put it in the place of that one, without a gap.

    A foreign route of the same prefix and metric makes it fail: others' routes are not replaced.
    """

    route: Route
    replaces: Route | None = None

    def __str__(self) -> str:
        return f"add {self.route}"


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    """Remove a route of ours."""

    route: Route

    def __str__(self) -> str:
        return f"remove {self.route}"


@dataclass(frozen=True, slots=True)
class AddNeighbour:
    """Put a permanent entry into the neighbour table, in the place of any for that address."""

    neighbour: Neighbour

    def __str__(self) -> str:
        return f"add {self.neighbour}"


@dataclass(frozen=True, slots=True)
class DeleteNeighbour:
    """Take an entry out of the neighbour table."""

    neighbour: Neighbour

    def __str__(self) -> str:
        return f"remove {self.neighbour}"


@dataclass(frozen=True, slots=True)
class SetLimit:
    """Limit a rate, whatever there is of that limit; makes the link to wait at if it needs one.

    Such a link is made with its `alias`: one that lacks it looks like somebody's damage.
    """

    limit: Limit
    alias: str | None = None

    def __str__(self) -> str:
        return f"set the {self.limit}"


@dataclass(frozen=True, slots=True)
class DeleteLimit:
    """Take a limit of a rate away."""

    limit: Limit

    def __str__(self) -> str:
        return f"remove the {self.limit}"


AddressingChange = (
    DeleteLink
    | RenameLink
    | SetSysctl
    | SetLink
    | AddAddress
    | DeleteAddress
    | AddRoute
    | DeleteRoute
    | AddNeighbour
    | DeleteNeighbour
)
LimitChange = SetLimit | DeleteLimit
Change = AddressingChange | LimitChange


def reconcile(desired: KernelState, actual: KernelState, *, remove: bool = True) -> list[Change]:
    """The changes that turn `actual` into `desired`; empty when there is nothing to do.

    Args:
        desired: what must be. What it says about links that do not exist is left out: they are
            made elsewhere, and the next comparison catches up.
        actual: what is, and is ours.
        remove: False only adds and corrects. For a pod's namespace, which its owner may extend.
    """
    stale = [name for name in actual.links if is_pod_link(name) and name not in desired.links]
    gone = frozenset(stale) if remove else frozenset()
    return [
        *(DeleteLink(name) for name in sorted(gone)),
        *(RenameLink(present, name) for name, present in sorted(actual.renamed.items())),
        *_sysctls(desired, actual),
        *_links(desired, actual),
        *(
            AddAddress(address)
            for address in sorted(desired.addresses - actual.addresses, key=str)
            if address.link in actual.links
        ),
        *_routes(desired, actual, gone, remove=remove),
        *_stale_addresses(desired, actual, gone, remove=remove),
        *_neighbours(desired, actual, gone, remove=remove),
        *_limits(desired, actual, gone, remove=remove),
    ]


def repairs(changes: Iterable[Change], desired: KernelState, before: KernelState) -> list[Change]:
    """Those changes that put right what somebody else has done.

    The others follow a changed wish: they would also be needed if the kernel was as it was wished
    for before.

    Args:
        changes: what `reconcile` gave for `desired`.
        desired: the present wish.
        before: the one before it.
    """
    links = {name: before.links.get(name, Link(name, up=False)) for name in desired.links}
    sysctls = {path: before.sysctls.get(path, "") for path in desired.sysctls}
    expected = set(
        reconcile(desired, replace(before, links={**before.links, **links}, sysctls=sysctls))
    )
    # What of a link has to be set depends on how it is; that its wish has changed does not.
    wished = {change.link.name for change in expected if isinstance(change, SetLink)}
    return [
        change
        for change in changes
        if change not in expected
        and not (isinstance(change, SetLink) and change.link.name in wished)
    ]


def _sysctls(desired: KernelState, actual: KernelState) -> Iterator[SetSysctl]:
    if desired.sysctls.get(FORWARDING6) == "1" and actual.sysctls.get(FORWARDING6) == "0":
        for name in sorted(actual.advertised_links - desired.links.keys()):
            yield SetSysctl(f"net/ipv6/conf/{name}/accept_ra", "2")
    for path, value in desired.sysctls.items():
        # A setting that does not exist belongs to a missing link, or to a kernel without IPv6:
        # then adding the address says so in clearer words.
        if actual.sysctls.get(path, value) != value:
            yield SetSysctl(path, value)


def _links(desired: KernelState, actual: KernelState) -> Iterator[SetLink]:
    for name, link in desired.links.items():
        present = actual.links.get(name)
        if present is None:
            continue
        differing = {
            key: wanted
            for key in _ATTRIBUTES
            if (wanted := getattr(link, key)) is not None and wanted != getattr(present, key)
        }
        if differing or link.up != present.up:
            # No others: a link-layer address that is set again makes the kernel forget neighbours.
            yield SetLink(Link(name, up=link.up, **differing))


def _routes(
    desired: KernelState, actual: KernelState, gone: frozenset[str], *, remove: bool
) -> Iterator[AddRoute | DeleteRoute]:
    stale = {route for route in actual.routes - desired.routes if route.link not in gone}
    by_key = {route.key: route for route in stale}
    for route in sorted(desired.routes - actual.routes, key=_reachable_first):
        if route.link and route.link not in actual.links:
            continue
        replaced = by_key.get(route.key)
        stale.discard(replaced or route)
        yield AddRoute(route, replaced)
    if remove:
        yield from (DeleteRoute(route) for route in sorted(stale, key=_reachable_first))


def _reachable_first(route: Route) -> tuple[bool, str, int]:
    return route.gateway is not None, str(route.prefix), route.metric


def _stale_addresses(
    desired: KernelState, actual: KernelState, gone: frozenset[str], *, remove: bool
) -> Iterator[DeleteAddress]:
    if remove:
        for address in sorted(actual.addresses - desired.addresses, key=str):
            if address.link not in gone:
                yield DeleteAddress(address)


def _neighbours(
    desired: KernelState, actual: KernelState, gone: frozenset[str], *, remove: bool
) -> Iterator[AddNeighbour | DeleteNeighbour]:
    held = {(one.link, one.address) for one in desired.neighbours}
    for one in sorted(desired.neighbours - actual.neighbours, key=str):
        if one.link in actual.links:
            yield AddNeighbour(one)
    if remove:
        for one in sorted(actual.neighbours, key=str):
            if one.link not in gone and (one.link, one.address) not in held:
                yield DeleteNeighbour(one)


def _limits(
    desired: KernelState, actual: KernelState, gone: frozenset[str], *, remove: bool
) -> Iterator[SetLimit | DeleteLimit]:
    for one in sorted(desired.limits - actual.limits, key=str):
        if one.link in actual.links:
            yield SetLimit(one, desired.links[one.queue].alias)
    places = {(one.link, one.queue) for one in desired.limits}
    if remove:
        for one in sorted(actual.limits, key=str):
            if (one.link, one.queue) not in places and not gone & {one.link}:
                yield DeleteLimit(one)
