"""Requests that change pods, with the upkeep of the kernel as much in their way as it can be.

A real daemon on a real kernel, in the test's own process, so that its upkeep can be made to run at
the very step of a request where it would do most harm.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from node.config import NodeConfig
from node.control.client import ControlClient
from node.daemon import Daemon
from node.errors import NodeError
from node.founding import found_node, store_node
from node.handover.succession import succeed
from node.identity import load_node
from node.kernel import netns
from node.kernel.keeper import Looked
from node.kernel.model import veth_name
from node.kernel.netlink import Netlink
from node.kernel.pods import own_namespace
from node.kernel.watch import News
from node.loop import LoopKind
from node.loop import run as run_loop
from node.state import StateFolder
from node.tasks import spawn
from overlay.views import LocalView, PodView
from tests.support.namespace import Namespace
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import links, run

pytestmark = NEEDS_KERNEL

TURNS = 200
"""Of the loop: more than any task needs to wake up, and to ask the netlink thread for something."""


@dataclass
class Site:
    """A daemon that runs, and a namespace for a pod.

    Attributes:
        daemon: in the loop of the test.
        home: its namespace.
        given: the pod's.
    """

    daemon: Daemon
    home: str
    given: str

    async def ask(self, method: str, **params: object) -> object:
        """A request, as the control server hands it on."""
        return await self.daemon.handlers.dispatch(method, params)

    async def type(self, method: str, **params: object) -> object:
        """A request through the control socket."""
        client = ControlClient(self.daemon.folder.socket)
        return await asyncio.to_thread(client.call, method, **params)

    async def upkeep(self) -> None:
        """Let the upkeep of the kernel do what it can at this moment: all of it, or wait."""
        self.daemon._upkeep.look_at_once()
        for _ in range(2):  # one that was about to end comes first
            await turns()
            await self.daemon._thread.call(nothing)  # it stands in line behind the upkeep's
        await turns()

    def wired(self) -> bool:
        """Whether there is anything of a pod, in its namespace or in the node's."""
        return links(self.given) != ["lo"] or veth_name("web") in links(self.home)

    def stored(self) -> list[str]:
        """The pods on the disk."""
        return [pod.name for pod in load_node(self.daemon.folder).state.pods]


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def nothing(_: Netlink) -> None:
    """Work for the netlink thread."""


Work = Callable[[Site], Coroutine[Any, Any, None]]
Beside = Callable[[Work], None]


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[Beside]:
    """Runs work beside a daemon, to the end of both."""
    folder = StateFolder(tmp_path / "node")
    folder.create()
    network = ip_network("10.244.0.0/16")
    founded = found_node(
        "vm1", cidr=network, cidr6=None, block_prefix=24, entropy=os.urandom, wall=1_700_000_000.0
    )
    store_node(folder, founded, None)
    given = netns.create(f"kt{os.getpid()}-given")

    async def serve(home: str, work: Work) -> None:
        config, node = NodeConfig(), load_node(folder)
        with succeed(folder, config, node.identity.node) as succession:
            daemon = Daemon(config, folder, node, NodeConfig, succession)
            ready = asyncio.Event()
            daemon._listen_to_signals = ready.set  # signals are the main thread's
            running = spawn(daemon.serve(), name="daemon", on_crash=lambda *_: ready.set())
            await ready.wait()
            try:
                site = Site(daemon, home, str(given))
                await site.upkeep()  # the one that follows the start
                await work(site)
            finally:
                daemon._ended.set()
                await asyncio.wait([running])

    try:
        with Namespace() as home:
            yield lambda work: home.run(run_loop, lambda: serve(home.path, work), LoopKind.UVLOOP)
    finally:
        made = Path(own_namespace("vm1", "", founded.cluster.id.hex())).name
        for name in (given.name, *(name for name in netns.names() if name.startswith(made))):
            netns.delete(name)


def test_a_pod_that_is_being_deleted_is_not_connected_again(beside: Beside) -> None:
    async def work(site: Site) -> None:
        await site.ask("pod.add", name="web", netns=site.given)
        assert site.wired()
        detach = site.daemon.detach_pod
        seen = []

        async def detach_and_let_look(name: str) -> None:
            await detach(name)
            await site.upkeep()
            seen.append(site.wired())

        site.daemon.detach_pod = detach_and_let_look
        await site.ask("pod.del", name="web")
        await site.upkeep()
        assert [*seen, site.wired()] == [False, False]
        # The name, and the namespace, are free at once.
        await site.ask("pod.add", name="web", netns=site.given)
        await site.upkeep()
        assert site.wired()
        assert site.daemon._upkeep.problems == ()

    beside(work)


def test_a_pod_that_could_not_be_deleted_is_connected_again(beside: Beside) -> None:
    async def work(site: Site) -> None:
        await site.ask("pod.add", name="web", netns=site.given)
        detach = site.daemon.detach_pod

        async def detach_and_fail(name: str) -> None:
            await detach(name)
            assert not site.wired()
            raise NodeError("the kernel is busy")

        site.daemon.detach_pod = detach_and_fail
        with pytest.raises(NodeError, match="busy"):
            await site.ask("pod.del", name="web")
        await site.upkeep()
        assert site.wired()
        assert site.stored() == ["web"]

    beside(work)


def test_a_pod_that_was_refused_is_not_connected_by_the_upkeep(beside: Beside) -> None:
    async def work(site: Site) -> None:
        # A foreign route to the address: the veth can be made, and the last step fails.
        run(site.home, "ip", "route", "add", "unreachable", "10.244.0.200/32")
        attach = site.daemon.attach_pod
        seen = []

        async def attach_and_let_look(pod: PodView) -> None:
            try:
                await attach(pod)
            finally:
                await site.upkeep()
                seen.append(site.wired())

        site.daemon.attach_pod = attach_and_let_look
        with pytest.raises(NodeError, match="file exists"):
            await site.ask("pod.add", name="web", netns=site.given, ip="10.244.0.200")
        await site.upkeep()
        assert [*seen, site.wired()] == [False, False]

    beside(work)


def test_the_upkeep_does_not_miss_a_namespace_that_is_still_to_be_made(beside: Beside) -> None:
    async def work(site: Site) -> None:
        apply, seen = site.daemon._kernel.apply, []

        async def noting(view: LocalView, news: News) -> Looked:
            looked = await apply(view, news)
            seen.extend(problem.code for problem in looked.problems)
            return looked

        site.daemon._kernel.apply = noting
        gate = threading.Event()
        blocked = spawn(site.daemon._thread.call(lambda _: assert_opened(gate)), name="gate")
        await turns()
        site.daemon._upkeep.look_at_once()  # an upkeep that knows of no pod stands in line first,
        await turns()
        adding = spawn(added(site), name="adding")  # then the request
        await turns()
        gate.set()
        await asyncio.wait([blocked, adding])
        await site.upkeep()
        assert site.stored() == ["web"]
        assert seen == []

    async def added(site: Site) -> None:
        await site.ask("pod.add", name="web")

    beside(work)


def assert_opened(gate: threading.Event) -> None:
    assert gate.wait(20)


@pytest.mark.parametrize("method", ["pod.add", "pod.del"])
def test_a_daemon_that_is_told_to_stop_finishes_the_change_it_has_begun(
    beside: Beside, method: str
) -> None:
    ended: list[Site] = []

    async def work(site: Site) -> None:
        ended.append(site)
        if method == "pod.del":
            await site.ask("pod.add", name="web", netns=site.given)
        attach, detach = site.daemon.attach_pod, site.daemon.detach_pod

        async def stop_then_attach(pod: PodView) -> None:
            site.daemon._ended.set()
            await turns()
            await attach(pod)

        async def detach_then_stop(name: str) -> None:
            await detach(name)
            site.daemon._ended.set()
            await turns()

        site.daemon.attach_pod, site.daemon.detach_pod = stop_then_attach, detach_then_stop
        given = {"netns": site.given} if method == "pod.add" else {}
        answer = await site.type(method, name="web", **given)
        assert answer["name"] == "web"

    beside(work)
    (site,) = ended
    whole = method == "pod.add"
    assert site.stored() == (["web"] if whole else [])
    assert (links(site.given) != ["lo"]) == whole
