"""A `KernelManager` on a model kernel, in one thread and without root."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from node.kernel import keeper as keeper_module
from node.kernel import manager as manager_module
from node.kernel.errors import KernelError
from node.kernel.keeper import Looked
from node.kernel.manager import KernelManager
from node.kernel.model import KernelSettings, KernelState, Link, is_veth_name, veth_name
from node.kernel.overlap import HostRoute
from node.kernel.pods import LINK_LOST, PodEnd
from node.kernel.reader import Ours
from node.kernel.reconcile import Change
from node.kernel.watch import NO_NEWS, News
from overlay.types import Prefix
from overlay.views import Problem
from tests.support.kernel import ModelKernel, RefusedByKernel
from tests.support.views import node_snapshot

SETTINGS = KernelSettings("muslin0", 1500)


class FakeNetlink:
    """`Netlink` on a model kernel, and `pods` with it."""

    def __init__(self) -> None:
        self.kernel = ModelKernel(KernelState({"muslin0": Link("muslin0", up=False)}))
        self.reads = 0
        self.numbers: dict[str, int] = {}
        self.lacking: dict[str, list[str]] = {}
        self.mended: list[tuple[str, bool]] = []
        self.refuse: Callable[[Change], bool] = lambda _: False
        self.namespaces = {"/run/netns/pod11"}
        self.host: list[HostRoute] = []

    def read(self, ours: Ours, sysctls: Sequence[str]) -> KernelState:
        self.reads += 1
        state = self.kernel.state()
        links = {name: _made(link) for name, link in state.links.items()}
        return replace(
            state,
            links={name: link for name, link in links.items() if ours(link)},
            namespaces=self.numbers,
        )

    def host_routes(self) -> list[HostRoute]:
        return self.host

    def apply(self, change: Change) -> None:
        if self.refuse(change):
            raise KernelError(f"{change}: file exists", "remove the other route")
        try:
            self.kernel.apply(change)
        except RefusedByKernel as error:
            raise KernelError(str(error)) from error

    def attach(self, _: object, end: PodEnd, mtu: int, *, first: bool = True) -> None:
        link = veth_name(end.pod)
        if end.handed and not first and link not in self.kernel.links:
            raise KernelError("its link is gone", "connect it again", LINK_LOST)
        if not end.handed and end.netns not in self.namespaces:
            raise KernelError(f"there is no namespace {end.netns}", "make one", "no-netns")
        self.kernel.links[link] = Link(link, mtu=mtu, alias=end.pod)

    def mend(self, end: PodEnd, _: int, *, thorough: bool) -> tuple[list[str], list[KernelError]]:
        self.mended.append((end.pod, thorough))
        if end.netns not in self.namespaces:
            raise KernelError(f"there is no namespace {end.netns}", "make one", "no-netns")
        return self.lacking.pop(end.pod, []), []

    def detach_together(self, _: object, pods: Sequence[str]) -> None:
        for pod in pods:
            self.kernel.links.pop(veth_name(pod), None)

    def detach(self, _: object, pod: str) -> None:
        self.kernel.links.pop(veth_name(pod), None)


def _made(link: Link) -> Link:
    """As whoever makes such links makes them."""
    return replace(link, kind="veth" if is_veth_name(link.name) else "tun")


class FakeThread:
    """Runs the work at once."""

    def __init__(self, netlink: FakeNetlink) -> None:
        self.netlink = netlink

    async def call(self, function: Callable[..., Any], *args: object) -> Any:
        return function(self.netlink, *args)


class Bench:
    """A manager on a fake thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.netlink = FakeNetlink()
        for name in ("attach", "detach", "mend"):
            monkeypatch.setattr(keeper_module.pods, name, getattr(self.netlink, name))
        monkeypatch.setattr(manager_module, "detach_together", self.netlink.detach_together)
        monkeypatch.setattr(
            keeper_module.netns, "exists", lambda path: path in self.netlink.namespaces
        )
        monkeypatch.setattr(
            keeper_module.netns, "is_gone", lambda path: path not in self.netlink.namespaces
        )
        thread: Any = FakeThread(self.netlink)
        removing: Any = FakeThread(self.netlink)
        self.manager = KernelManager(SETTINGS, thread, removing)

    def apply(self, *pods: Any, news: News = NO_NEWS, **changes: Any) -> tuple[Problem, ...]:
        return self.look(*pods, news=news, **changes).problems

    def look(self, *pods: Any, news: News = NO_NEWS, **changes: Any) -> Looked:
        return asyncio.run(self.manager.apply(replace(node_snapshot(1, pods), **changes), news))

    def routed(self) -> set[Prefix]:
        return {route.prefix for route in self.netlink.kernel.routes.values()}
