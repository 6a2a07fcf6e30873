"""A model of the kernel's rules for links, addresses and routes, to try changes on.

It refuses what the kernel refuses, and forgets along what the kernel forgets along: routes with
their link or preferred source, addresses with their link.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import assert_never

from node.kernel.model import KernelState, Link, LinkAddress, Route
from node.kernel.reconcile import (
    AddAddress,
    AddNeighbour,
    AddRoute,
    Change,
    DeleteAddress,
    DeleteLimit,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    RenameLink,
    SetLimit,
    SetLink,
    SetSysctl,
)
from overlay.types import Address, Prefix


class RefusedByKernel(AssertionError):
    """The model kernel refused a change."""


class ModelKernel:
    """One namespace. `state()` is what `Netlink.read` would give."""

    def __init__(self, state: KernelState, foreign: Iterable[tuple[Prefix, int]] = ()) -> None:
        self.links = dict(state.links)
        self.addresses = set(state.addresses)
        self.routes = {route.key: route for route in state.routes}
        self.sysctls = dict(state.sysctls)
        self.neighbours = {(one.link, one.address): one for one in state.neighbours}
        self.limits = {(one.link, one.queue): one for one in state.limits}
        self.renamed = dict(state.renamed)
        self.advertised = set(state.advertised_links)
        self.foreign = set(foreign)
        self.log: list[Change] = []

    def state(self) -> KernelState:
        return KernelState(
            links=dict(self.links),
            addresses=frozenset(self.addresses),
            routes=frozenset(self.routes.values()),
            neighbours=frozenset(self.neighbours.values()),
            limits=frozenset(self.limits.values()),
            sysctls=dict(self.sysctls),
            advertised_links=frozenset(self.advertised),
            renamed=dict(self.renamed),
        )

    def apply(self, change: Change) -> None:
        self.log.append(change)
        match change:
            case DeleteLink(name):
                self._need(name in self.links, change)
                del self.links[name]
                self.addresses = {held for held in self.addresses if held.link != name}
                self._drop(route for route in self.routes.values() if route.link == name)
                self._drop_neighbours(name)
                self.limits = {on: one for on, one in self.limits.items() if name not in on}
                self._drop_sourceless()
            case RenameLink(present, name):
                self._need(name in self.renamed and name in self.links, change)
                self._need(self.renamed.pop(name) == present, change)
            case SetSysctl(path, value):
                self.sysctls[path] = value
                if path.endswith("/accept_ra"):
                    self.advertised.discard(path.split("/")[-2])
            case SetLink(link):
                self._need(link.name in self.links, change)
                self.links[link.name] = _merged(self.links[link.name], link)
                if not link.up:
                    self._drop_neighbours(link.name)
            case AddAddress(held):
                self._need(held.link in self.links and held not in self.addresses, change)
                self.addresses.add(held)
            case DeleteAddress(held):
                self._need(held in self.addresses, change)
                self.addresses.discard(held)
                self._drop_sourceless()
            case AddRoute(route, replaces):
                self._add_route(change, route, replaces)
            case DeleteRoute(route):
                # It may have gone along with its source; `Netlink.apply` takes that for done.
                self._need(self.routes.get(route.key, route) == route, change)
                self.routes.pop(route.key, None)
            case AddNeighbour(one):
                self._need(one.link in self.links and self.links[one.link].up, change)
                self.neighbours[one.link, one.address] = one
            case DeleteNeighbour(one):
                # One of a link that went down has gone; `Netlink.apply` takes that for done.
                self.neighbours.pop((one.link, one.address), None)
            case SetLimit(limit, alias):
                self._need(limit.link in self.links, change)
                self.links.setdefault(limit.queue, Link(limit.queue, alias=alias))
                self.limits[limit.link, limit.queue] = limit
            case DeleteLimit(limit):
                self.limits.pop((limit.link, limit.queue), None)
            case _:
                assert_never(change)

    def _drop_neighbours(self, link: str) -> None:
        kept = {key: one for key, one in self.neighbours.items() if one.link != link}
        self.neighbours = kept

    def _add_route(self, change: Change, route: Route, replaces: Route | None) -> None:
        self._need(route.key not in self.foreign, change)
        self._need(self.routes.get(route.key, replaces) == replaces, change)
        self._need(not route.link or route.link in self.links, change)
        self._need(route.source is None or route.source in self._held(), change)
        if route.gateway is not None:
            on_link = (
                known.prefix
                for known in self.routes.values()
                if known.link == route.link and known.gateway is None
            )
            near = route.gateway.is_link_local and route.gateway.version == 6
            self._need(near or any(route.gateway in prefix for prefix in on_link), change)
        self.routes[route.key] = route

    def _held(self) -> set[Address]:
        return {ip_address(held.address.ip) for held in self.addresses}

    def _drop_sourceless(self) -> None:
        held = self._held()
        self._drop(
            route for route in self.routes.values() if route.source and route.source not in held
        )

    def _drop(self, routes: Iterable[Route]) -> None:
        for route in list(routes):
            del self.routes[route.key]

    @staticmethod
    def _need(allowed: bool, change: Change) -> None:
        if not allowed:
            raise RefusedByKernel(str(change))


def _merged(present: Link, wanted: Link) -> Link:
    given = {
        field: value
        for field in ("mtu", "gso_max_size", "txqueuelen", "alias", "mac", "master")
        if (value := getattr(wanted, field)) is not None
    }
    return replace(present, up=wanted.up, **given)


def route(prefix: str, link: str = "", *, source: str = "", metric: int = 0) -> Route:
    """A route written short."""
    return Route(
        ip_network(prefix), link, source=ip_address(source) if source else None, metric=metric
    )


def held(link: str, address: str) -> LinkAddress:
    """An address on a link, written short."""
    return LinkAddress(link, ip_interface(address))
