"""The daemon: the one place where everything is made and joined.

    folder, config --> TUN, UDP socket, engine, driver         packets
                       kernel thread, kernel manager           links, addresses, routes, pods
                       control server, handlers                people and programs

Everything is checked before the machine is touched; parts stop in the reverse order of their
start. SIGTERM and SIGINT stop cleanly: pods stay attached and the next daemon finds them. SIGHUP
reads the settings again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

from node.birth import make_engine
from node.config import NodeConfig
from node.control.handlers import Handlers
from node.control.present import DaemonFacts
from node.departure import Departure
from node.driver import Driver
from node.edges import Edges
from node.errors import NodeError
from node.handover.capsule import Capsule
from node.handover.succession import Succession, hello_for, succeed
from node.identity import StoredNode, load_node, state_of
from node.journal import Journal
from node.kernel.manager import KernelManager
from node.kernel.model import KernelSettings
from node.kernel.netlink import Netlink
from node.kernel.nft import Firewall
from node.kernel.thread import KernelThread
from node.lanes.supervisor import Supervisor, check_ports
from node.logs import EventLog
from node.loop import run as run_loop
from node.machine import MachineFacts, machine_facts
from node.pinger import Pinger
from node.preflight import check_membership, check_overlap
from node.reloading import reloaded
from node.sealed import configured_passphrase
from node.state import STATE, StateFolder
from node.surroundings import Surroundings
from node.tasks import spawn, stop
from node.upkeep import Upkeep
from node.version import software_version
from node.writer import Stored, Writer
from overlay.effects import (
    Effect,
    Left,
    ProbeAnswered,
    Report,
    TalkEffect,
    TellDaemon,
    TellLane,
)
from overlay.engine import Engine
from overlay.snapshots import take_local_view
from overlay.state import Change
from overlay.types import Address
from overlay.views import PodView

STOP_DELAY = 0.1
"""Between the answer to a request that ends the daemon and the end."""


def run(config: NodeConfig, folder: StateFolder, reload: Callable[[], NodeConfig]) -> None:
    """Run the node of `folder` until a signal or `leave` ends it, or another daemon takes over.

    Args:
        config: its settings.
        folder: its state folder; locked while the daemon runs. If one runs already, its place is
            taken.
        reload: reads the settings again (SIGHUP); may raise ConfigError.

    Raises:
        OverlayError: it cannot start: no node here, folder in use or damaged, no TUN, port in
            use, the cluster range overlaps a host route. Nothing was changed then, and a daemon
            that runs goes on.
    """
    node = load_node(folder, configured_passphrase(config.passphrase_file))
    check_membership(node)
    with succeed(folder, config, node.identity.node) as succession:
        daemon = Daemon(config, folder, node, reload, succession)
        run_loop(daemon.serve, config.loop)


class Daemon:
    """One running node. Implements what the driver and the handlers ask for.

    Args:
        config, folder, reload: as for `run`.
        node: what the folder holds, or held a moment ago.
        succession: what it follows.
    """

    def __init__(
        self,
        config: NodeConfig,
        folder: StateFolder,
        node: StoredNode,
        reload: Callable[[], NodeConfig],
        succession: Succession,
    ) -> None:
        self._config = config
        self.folder = folder
        self._node = node
        self._reload = reload
        self._log = EventLog()
        self._succession = succession
        self.notifier = succession.notifier
        self._ended = asyncio.Event()
        self._has_left = False
        self._crashed = ""
        self._started = self.now()
        self.handlers = Handlers(self)

    @staticmethod
    def now() -> float:
        """Monotonic seconds: the engine's clock."""
        return time.monotonic()

    # -- life ----------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Start everything, run until told to stop, stop everything. NodeError after a defect."""
        async with AsyncExitStack() as stack:
            passed = await self._open(stack)
            self.lock = self._succession.confirm()
            self.edges.owned = True
            stack.callback(self.driver.close)
            if not self.driver.start(must=not self.engine.inherited):
                raise self._not_stored()
            self._writer.start()
            self._lanes = self._make_lanes()
            stack.push_async_callback(self._lanes.close)
            present = await self.present_pods()
            self.driver.perform(self.engine.release_lost(present, self.now(), at_start=True))
            await self._upkeep.apply()
            await self.handlers.pods.settling.settle()
            who = hello_for(self._config, self._node.identity.node, self.edges.udp.local.port)
            departure = Departure(self, who, self._config.control_group)
            await departure.listen(stack, passed)
            await departure.serve_docker(stack, self._config.docker, passed)
            tasks = (
                spawn(self._upkeep.run(), name="kernel", on_crash=self._on_crash),
                spawn(self._around.follow(self), name="addresses", on_crash=self._on_crash),
                spawn(self.notifier.feed_watchdog(), name="watchdog", on_crash=self._on_crash),
            )
            stack.push_async_callback(stop, *tasks)
            self._listen_to_signals()
            self._announce_ready()
            await asyncio.to_thread(self.edges.remember, self.folder)
            await self._ended.wait()
            self.notifier.stopping()
            await self.handlers.close()
            await self.handlers.benches.close()
            await departure.say_goodbye(for_good=self._has_left or bool(self._crashed))
        self._log.info("node.stopped", node=self._node.identity.name)
        if self._crashed:  # whoever supervises this process shall start it again
            raise NodeError(f"its task {self._crashed} has a defect", "look at its log")

    async def _open(self, stack: AsyncExitStack) -> dict[str, int]:
        """Everything that can fail because of the machine, before anything is announced.

        Returns:
            Descriptors that were passed on and not used yet, by name.
        """
        self._thread = KernelThread()
        stack.push_async_callback(self._thread.close)
        config, succession = self._config, self._succession
        edges = self.edges = Edges(config, self._node.identity.node, self._thread, self.notifier)
        edges.owned = not succession.runs
        stack.callback(edges.close)
        if not succession.runs:
            # The port comes first: two nodes in one namespace collide there before anywhere else.
            edges.open_udp(succession.left.descriptors, must=False)
        local = succession.local if succession.local is not None else edges.udp.local
        checking = asyncio.get_running_loop().run_in_executor(None, edges.check, self.folder)
        routes = await self._thread.call(Netlink.host_routes)
        check_overlap(self._node.cluster, (one for one in routes if one.link != config.tun))
        self._around = Surroundings(config, local, self._node.cluster, self._thread)
        stack.callback(self._around.close)
        await self._around.look()
        ports = check_ports(local.port, config.lanes)
        settings = KernelSettings(config.tun, config.mtu, ports, config.masquerades)
        stack.push_async_callback((removing := KernelThread()).close)
        self._kernel = KernelManager(settings, self._thread, removing, Firewall())
        stack.push_async_callback(lambda: self._kernel.close(remove=self._has_left))
        await self._kernel.check_egress()
        Departure.check(config.docker)
        result = await checking
        estate = succession.take()  # from here on a daemon that runs stands still
        if succession.runs:
            edges.open_udp(estate.descriptors, must=True)
        self._journal = Journal.open(self.folder.path / STATE.name, report=self.report)
        stack.callback(self._journal.close)
        self._writer = Writer(self._journal)
        stack.callback(self._writer.close)
        await edges.open_tun(result, estate.descriptors, must=succession.runs)
        self.engine = self._make_engine(estate.capsule)
        self._upkeep = Upkeep(
            self._kernel,
            lambda: take_local_view(self.engine),
            self.handlers.turns,
            self._log,
            revive=lambda: self.driver.revive_tun(),
            after=edges.keep,
        )
        self._pinger = Pinger()
        stack.callback(self._pinger.close)
        self.driver = Driver(
            engine=self.engine, tun=edges.tun, udp=edges.udp, listener=self, clock=self.now
        )
        if not self.engine.inherited:  # which knows them, and is not ours before it was confirmed
            self.perform(self.engine.on_ways(self._around.guard.ways, self.now()))
        return estate.descriptors

    def _make_engine(self, capsule: Capsule | None) -> Engine:
        """An engine that knows what is stored, and what an earlier one knew if that is there."""
        self._node = replace(self._node, state=state_of(self.folder, self._journal.entries))
        return make_engine(self._config, self._node, self.edges, self._around, capsule)

    async def end_lanes(self) -> None:
        """Lane 0 carries everything from now on."""
        self.perform(self.engine.retire_lanes(self.now()))
        await self._lanes.retire(lambda: self.engine.lanes_retired)

    async def start_again(self, capsule: Capsule | None) -> None:
        """Go on after a pause, with an engine that knows what the last one knew; None: with it."""
        if capsule is None:
            self.driver.go_on()
            self.perform(self.engine.keep_lanes(self.now()))
        else:
            self.engine = self._make_engine(capsule)
            if not await self.driver.carry_on(self.engine):
                self._on_crash("handover", self._not_stored())
        self._lanes.begin()

    def _make_lanes(self) -> Supervisor:
        return Supervisor(
            self._config,
            self._node.identity.node,
            port=self.edges.udp.local.port,
            udp=self.edges.udp.fileno(),
            offloads=self.edges.offloads,
            on_lane=self._follow_lane,
            on_crash=self._on_crash,
        )

    def _follow_lane(self, lane: int, report: bytes | None) -> None:
        self.driver.perform(self.engine.on_lane(lane, report, self.now()))

    def _announce_ready(self) -> None:
        snapshot = self.engine.snapshot(self.now())
        self._log.info(
            "node.ready",
            node=snapshot.name,
            listen=str(self.edges.udp.local),
            address=str(snapshot.address or "none yet"),
            offloads=",".join(self.edges.offloads) or "none",
            guard=self._kernel.guard.why or self._kernel.guard.by,
        )
        self.notifier.ready(f"node {snapshot.name}")

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_config)

    def _reload_config(self) -> None:
        self.notifier.reloading()
        self._config = reloaded(self._config, self._reload, self._log)
        self.driver.perform(self.engine.on_routes(self._config.advertise_routes, self.now()))
        self._kernel.set_masquerade(self._config.masquerades)
        self._upkeep.look_at_once()
        self.notifier.ready()

    def _on_crash(self, name: str, _error: Exception) -> None:
        self._crashed = name
        self._ended.set()

    # -- for the driver ------------------------------------------------------------------------

    def store(self, changes: tuple[Change, ...], then: Stored) -> None:
        """Store changes of the engine's state, all or none, and synced; then call `then`."""
        self._writer.write(changes, then)

    def network_changed(self) -> None:
        """Let the kernel follow, if that is not the affair of a request."""
        self._upkeep.network_changed()

    def interface_made(self) -> None:
        """Let the kernel put on the TUN interface what belongs there."""
        self._upkeep.look_at_once()

    def report(self, report: Report) -> None:
        """Log it."""
        self._log.report(report, now=self.now())

    def probe_answered(self, answer: ProbeAnswered) -> None:
        """Hand the answer to whoever asked."""
        self.handlers.probe_answered(answer)

    def heard(self, effect: TalkEffect) -> None:
        """A member said something that concerns the machine."""
        self.handlers.heard(effect)

    def left(self, left: Left) -> None:
        """The node has left: tell who asked for it."""
        self._has_left = True
        self._log.info("node.left", confirmed=left.confirmed)
        if not self.handlers.left(left):
            self._ended.set()  # asked for in an earlier run, which ended too early

    def tell(self, message: TellLane | TellDaemon) -> None:
        """An order for one of our other lanes."""
        self._lanes.tell(message)

    # -- for the handlers ------------------------------------------------------------------------

    def facts(self) -> DaemonFacts:
        """What the status says of the process."""
        return DaemonFacts(
            epoch=self._around.wall.epoch,
            started=self._started,
            pid=os.getpid(),
            version=software_version(),
            offloads=self.edges.offloads,
            problems=(
                *self._upkeep.problems,
                *self._lanes.problems(),
                *self._around.guard.problems,
                *self._around.filters.problems,
            ),
            lanes=self._lanes.facts(),
            guard=self._kernel.guard,
            mtu=self._config.mtu,
        )

    async def refresh(self) -> None:
        """Hear the latest counters of all lanes, and of the kernel."""
        await self._lanes.refresh()
        await self._kernel.count()

    def perform(self, effects: list[Effect]) -> None:
        """Execute effects of the engine that nothing is to be stored for."""
        self.driver.perform(effects)

    async def stored(self, effects: list[Effect]) -> None:
        """Execute effects of the engine, and wait until all is stored; NodeError if it is not."""
        if not await self.driver.stored(effects):
            raise self._not_stored()

    def _not_stored(self) -> NodeError:
        why = f"the node's state cannot be stored ({self.engine.not_stored})"
        return NodeError(why, "free space or mend the disk", "not-stored")

    async def attach_pod(self, pod: PodView) -> None:
        """Connect a pod to the kernel."""
        await self._kernel.attach_pod(pod)

    async def check_pod(self, pod: PodView) -> None:
        """See that a pod is connected."""
        await self._kernel.check_pod(pod)

    async def detach_pod(self, name: str) -> None:
        """Disconnect a pod."""
        await self._kernel.detach_pod(name)

    async def present_pods(self) -> frozenset[str]:
        """The pods that have a namespace, or a veth into one."""
        return await self._kernel.present(take_local_view(self.engine).pods)

    async def stray_links(self) -> tuple[str, ...]:
        """Host ends of veths that belong to no pod."""
        return await self._kernel.strays()

    async def ping_address(self, address: Address, timeout: float) -> float | None:  # noqa: ASYNC109
        """Seconds until an ICMP echo was answered; None if it was not."""
        return await self._pinger.ping(address, timeout)

    def machine(self) -> MachineFacts:
        """What this machine is like, for comparing it with others."""
        problems = [one.code for one in self.engine.snapshot(self.now()).problems]
        return machine_facts(self._config, self.facts(), self._around, problems)

    def serves_bench(self) -> bool:
        """Whether members may measure the way to here."""
        return self._config.bench

    def request_stop(self) -> None:
        """End soon, but not before the present request was answered."""
        asyncio.get_running_loop().call_later(STOP_DELAY, self._ended.set)
