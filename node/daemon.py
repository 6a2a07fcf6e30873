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
import random
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

from node.config import NodeConfig
from node.control.handlers import Handlers
from node.control.present import DaemonFacts
from node.control.server import ControlServer
from node.docker.plugin import serving
from node.driver import Driver
from node.errors import NodeError
from node.identity import StoredNode, load_node
from node.io.tun import Tun
from node.io.udp import UdpSocket
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
from node.preflight import check_membership, check_overlap, has_aes
from node.reloading import reloaded
from node.sealed import configured_passphrase
from node.selftest.check import Result, check_offloads
from node.state import STATE, StateFolder
from node.surroundings import Surroundings, boot_id
from node.systemd import Notifier
from node.tasks import spawn, stop
from node.upkeep import Upkeep
from node.version import software_version
from node.writer import Stored, Writer
from overlay.config import Settings, Timing
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
    """Run the node of `folder` until a signal or `leave` ends it.

    Args:
        config: its settings.
        folder: its state folder; locked while the daemon runs.
        reload: reads the settings again (SIGHUP); may raise ConfigError.

    Raises:
        OverlayError: it cannot start: no node here, folder in use or damaged, no TUN, port in
            use, the cluster range overlaps a host route. Nothing was changed then.
    """
    with folder.locked():
        node = load_node(folder, configured_passphrase(config.passphrase_file))
        check_membership(node)
        run_loop(lambda: Daemon(config, folder, node, reload).serve(), config.loop)


class Daemon:
    """One running node. Implements what the driver and the handlers ask for.

    Args:
        config, folder, reload: as for `run`.
        node: what the folder holds.
    """

    def __init__(
        self,
        config: NodeConfig,
        folder: StateFolder,
        node: StoredNode,
        reload: Callable[[], NodeConfig],
    ) -> None:
        self._config = config
        self.folder = folder
        self._node = node
        self._reload = reload
        self._log = EventLog()
        self._notifier = Notifier()
        self._ended = asyncio.Event()
        self._has_left = False
        self._crashed = ""
        self._started = self.now()
        self._handlers = Handlers(self)

    @staticmethod
    def now() -> float:
        """Monotonic seconds: the engine's clock."""
        return time.monotonic()

    # -- life ----------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Start everything, run until told to stop, stop everything. NodeError after a defect."""
        async with AsyncExitStack() as stack:
            await self._open(stack)
            stack.callback(self._driver.close)
            if not self._driver.start():
                raise self._not_stored()
            self._writer.start()
            self._lanes = self._make_lanes()
            stack.push_async_callback(self._lanes.close)
            present = await self.present_pods()
            self._driver.perform(self.engine.release_lost(present, self.now(), at_start=True))
            await self._upkeep.apply()
            path, group = self.folder.socket, self._config.control_group
            server = await ControlServer(path, self._handlers.dispatch, group=group).start()
            stack.push_async_callback(server.close)
            await self._handlers.pods.settling.settle()
            await stack.enter_async_context(serving(self._config.docker, self._handlers.dispatch))
            tasks = (
                spawn(self._upkeep.run(), name="kernel", on_crash=self._on_crash),
                spawn(self._around.follow(self), name="addresses", on_crash=self._on_crash),
                spawn(self._notifier.feed_watchdog(), name="watchdog", on_crash=self._on_crash),
            )
            stack.push_async_callback(stop, *tasks)
            self._listen_to_signals()
            self._announce_ready()
            await self._ended.wait()
            self._notifier.stopping()
            await self._handlers.close()
            await self._handlers.benches.close()
            await self._driver.stop()
        self._log.info("node.stopped", node=self._node.identity.name)
        if self._crashed:  # whoever supervises this process shall start it again
            raise NodeError(f"its task {self._crashed} has a defect", "look at its log")

    async def _open(self, stack: AsyncExitStack) -> None:
        """Everything that can fail because of the machine, before anything is announced."""
        self._thread = KernelThread()
        stack.push_async_callback(self._thread.close)
        config = self._config
        # The port comes first: two nodes in one namespace collide there before anywhere else.
        self._udp = UdpSocket(config.listen, gso=config.udp_gso, gro=config.udp_gro)
        stack.callback(self._udp.close)
        self._journal = Journal.open(self.folder.path / STATE.name, report=self.report)
        stack.callback(self._journal.close)
        self._writer = Writer(self._journal)
        stack.callback(self._writer.close)
        ports = check_ports(self._udp.local.port, config.lanes)
        wanted = (*self._udp.offloads, *config.tun_offload)
        checking = asyncio.get_running_loop().run_in_executor(None, check_offloads, wanted)
        check_overlap(self._node.cluster, await self._thread.call(Netlink.host_routes))
        self._around = Surroundings(config, self._udp.local, self._node.cluster, self._thread)
        stack.callback(self._around.close)
        await self._around.look()
        result = await checking
        works = [name for name in config.tun_offload if name in result.works]
        self._tun = Tun(config.tun, offload=works, queues=config.lanes > 1)
        stack.callback(self._tun.close)
        self._follow_check(result)
        self.engine = self._make_engine()
        settings = KernelSettings(self._tun.name, config.mtu, ports, config.masquerades)
        self._kernel = KernelManager(settings, self._thread, Firewall())
        await self._kernel.check_egress()
        stack.push_async_callback(lambda: self._kernel.close(remove=self._has_left))
        self._upkeep = Upkeep(
            self._kernel,
            lambda: take_local_view(self.engine),
            self._handlers.turns,
            self._log,
            revive=lambda: self._driver.revive_tun(),
        )
        self._pinger = Pinger()
        stack.callback(self._pinger.close)
        self._driver = Driver(
            engine=self.engine, tun=self._tun, udp=self._udp, listener=self, clock=self.now
        )
        self.perform(self.engine.on_ways(self._around.guard.ways, self.now()))

    def _follow_check(self, result: Result) -> None:
        """Say what failed and was left off; switch it off where it is on already."""
        for name, why in result.failed.items():
            self._log.warning("offload.failed", offloads=name, why=why)
            if name in self._udp.offloads:
                self._udp.set_offload(name, on=False, endpoint=None)
        if result.trusted:
            self._log.info("offload.trusted", offloads="tun", why=result.trusted)

    def _make_engine(self) -> Engine:
        node = self._node
        return Engine(
            identity=node.identity,
            cluster=node.cluster,
            psk=node.psk,
            state=node.state,
            settings=Settings(
                timing=Timing(quarantine=self._config.quarantine),
                mtu=self._config.mtu,
                underlay_mtu=self._around.underlay_mtu,
                routes=self._config.advertise_routes,
                offloads=(*self._udp.offloads, *self._tun.offloads),
                prefer_aes=has_aes(),
                certificate_lifetime=self._config.certificate_lifetime,
            ),
            entropy=os.urandom,
            rng=random.Random(),
            epoch=self._around.wall.epoch,
            endpoints=self._around.endpoints,
            deliver=self._tun.write,
            transmit=self._udp.send,
            authorities=node.authorities,
            version=software_version(),
            lanes=self._config.lanes,
            boot_id=boot_id(),
        )

    def _make_lanes(self) -> Supervisor:
        return Supervisor(
            self._config,
            self._node.identity.node,
            port=self._udp.local.port,
            udp=self._udp.fileno(),
            offloads=(*self._udp.offloads, *self._tun.offloads),
            on_lane=self._follow_lane,
            on_crash=self._on_crash,
        )

    def _follow_lane(self, lane: int, report: bytes | None) -> None:
        self._driver.perform(self.engine.on_lane(lane, report, self.now()))

    def _announce_ready(self) -> None:
        snapshot = self.engine.snapshot(self.now())
        self._log.info(
            "node.ready",
            node=snapshot.name,
            listen=str(self._udp.local),
            address=str(snapshot.address or "none yet"),
            offloads=",".join((*self._tun.offloads, *self._udp.offloads)) or "none",
            guard=self._kernel.guard.why or self._kernel.guard.by,
        )
        self._notifier.ready(f"node {snapshot.name}")

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_config)

    def _reload_config(self) -> None:
        self._notifier.reloading()
        self._config = reloaded(self._config, self._reload, self._log)
        self._driver.perform(self.engine.on_routes(self._config.advertise_routes, self.now()))
        self._kernel.set_masquerade(self._config.masquerades)
        self._upkeep.network_changed()
        self._notifier.ready()

    def _on_crash(self, name: str, _error: Exception) -> None:
        self._crashed = name
        self._ended.set()

    # -- for the driver ------------------------------------------------------------------------

    def store(self, changes: tuple[Change, ...], then: Stored) -> None:
        """Store changes of the engine's state, all or none, and synced; then call `then`."""
        self._writer.write(changes, then)

    def network_changed(self) -> None:
        """Let the kernel follow soon."""
        self._upkeep.network_changed()

    def report(self, report: Report) -> None:
        """Log it."""
        self._log.report(report, now=self.now())

    def probe_answered(self, answer: ProbeAnswered) -> None:
        """Hand the answer to whoever asked."""
        self._handlers.probe_answered(answer)

    def heard(self, effect: TalkEffect) -> None:
        """A member said something that concerns the machine."""
        self._handlers.heard(effect)

    def left(self, left: Left) -> None:
        """The node has left: tell who asked for it."""
        self._has_left = True
        self._log.info("node.left", confirmed=left.confirmed)
        if not self._handlers.left(left):
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
            offloads=(*self._tun.offloads, *self._udp.offloads),
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
        self._driver.perform(effects)

    async def stored(self, effects: list[Effect]) -> None:
        """Execute effects of the engine, and wait until all is stored; NodeError if it is not."""
        if not await self._driver.stored(effects):
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
