"""One simulated machine: a disk, a socket, a TUN, and an engine while it runs.

It stands where the daemon's driver stands and keeps its promises: about effects and the disk, and
that one timer follows the engine's next deadline. The engine is told the machine's own time.

       underlay --receive--> +--------+ --effects--> underlay, disk, trace
         send_packet ------> | engine | --deliver--> `delivered`
              alarm -------> +--------+ --next_deadline--> alarm
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from functools import partial

from overlay.catalog.removals import is_removed
from overlay.effects import (
    Effect,
    Left,
    NetworkChanged,
    Persist,
    ProbeAnswered,
    Renewed,
    Report,
    Scalar,
    SendDatagram,
    SetOffload,
    TalkEffect,
)
from overlay.engine import Engine
from overlay.errors import StateError
from overlay.sim.executor import Executor
from overlay.sim.faults import Disk, Power, Starvation
from overlay.sim.link import Lost
from overlay.sim.localtime import TRUE, Clocks, LocalTime
from overlay.sim.port import Port
from overlay.sim.processor import Processor
from overlay.sim.site import Membership, Site
from overlay.sim.timer import Timer
from overlay.state import NodeState
from overlay.types import Address, Endpoint
from overlay.views import PodView, Snapshot
from overlay.wire.items import Item
from overlay.wire.virtio import NO_OFFLOAD


class Machine:
    """One machine of a world. Made by `World`; starts when told to.

    Attributes:
        name: unique in the world.
        disk: what survives a crash.
        power: running, paused or off.
        left: whether its node has left the cluster.
        delivered: packets that came out of its TUN, in order.
        answered: replies to probes it was asked for.
        time: its clocks.
        port: its socket.
        traffic: what it sent and received.
        changes: grows whenever what it shows of itself may have changed.
        acted: called after everything it did; the world's inspector.
    """

    def __init__(
        self,
        *,
        name: str,
        endpoint: Endpoint,
        site: Site,
        seed: str,
        membership: Membership,
        clocks: Clocks = TRUE,
    ) -> None:
        self.name = name
        self.membership = membership
        self.disk = Disk(NodeState().entries())
        self.power = Power.OFF
        self.left = False
        self.delivered: list[bytes] = []
        self.answered: list[ProbeAnswered] = []
        self.asked: list[TalkEffect] = []
        self.changes = 0
        self.time = LocalTime(site.clock, site.epoch, clocks)
        self.acted: Callable[[Machine], None] | None = None
        self._site = site
        # Both go on after a restart, as a machine's entropy does: no key is made twice.
        self._rng = random.Random(f"{seed}/{name}/choices")
        self._entropy = random.Random(f"{seed}/{name}/entropy").randbytes
        self._luck = random.Random(f"{seed}/{name}/luck")
        self._engine: Engine | None = None
        self._timer = Timer(site.clock, self.time, self._wake)
        self._processor = Processor(site.clock, partial(self._timer.arm, None), self._go_on)
        self._executor = Executor(self.disk, self._processor, self._execute, self._on_not_stored)
        self.port = Port(name, endpoint, site.underlay, self.receive)
        self.traffic = self.port.traffic

    # -- power -----------------------------------------------------------------------------------

    def start(self, inherited: bytes | None = None) -> None:
        """Start the daemon from what the disk holds; it refuses when its node has left.

        `inherited` is what the engine before handed over, if it did.

        Raises:
            StateError: it runs already. Nothing else.
        """
        if self._engine is not None:
            raise StateError(f"{self.name} runs already")
        member, site = self.membership, self._site
        state = self.stored
        self.left = state.left and state.told
        if self.left or is_removed(state.items, member.cluster, member.identity.node):
            why = "the node has left" if self.left else "the node was removed"
            self._note("machine.refused", why=why)
            return
        self._engine = Engine(
            identity=member.identity,
            cluster=member.cluster,
            psk=member.psk,
            state=state,
            settings=site.settings,
            entropy=self._entropy,
            rng=self._rng,
            epoch=self.time.epoch,
            endpoints=(self.endpoint,),
            deliver=self._deliver,
            transmit=self._transmit,
            authorities=member.authorities,
            version="simulated",
            reader=site.reader(member.cluster),
            inherited=inherited,
        )
        self.power = Power.RUNNING
        self._note("machine.started")
        self._executor.start(self._engine.start(self.now))
        self.perform(())
        if self._engine is not None and self._engine.not_stored:
            # As the daemon does: the next start would use the same boot counter again.
            self._halt("machine.refused")

    def upgrade(self) -> bool:
        """Hand over to a fresh engine, or raise as that; False while the disk is writing."""
        if not self._executor.is_idle:
            return False
        inherited = self.engine.hand_over(self.now)
        self._engine = None
        self._note("machine.upgraded", size=len(inherited))
        self.start(inherited)
        return True

    def stop(self) -> None:
        """Stop the daemon in good order."""
        self.perform(self.engine.stop(self.now))
        self._halt("machine.stopped")

    def crash(self) -> None:
        """Kill the process: everything but what it wrote is gone."""
        self._halt("machine.crashed")

    def power_loss(self) -> None:
        """Cut the power: everything but what is really on the disk is gone."""
        lost = self.disk.power_loss()
        self._halt("machine.lost-power")
        if lost:
            self._note("disk.lost", transactions=lost)

    def _halt(self, event: str) -> None:
        self._engine = None
        self.power = Power.OFF
        self.port.inbox.take()
        self._executor.reset()
        self._processor.reset()
        self._timer.arm(None)
        self._note(event)

    def pause(self) -> None:
        """Stop without noticing: datagrams wait in the socket buffer, deadlines come late."""
        if self.power is Power.RUNNING:
            self.power = Power.PAUSED
            self._processor.pause(True)
            self._note("machine.paused")

    def resume(self) -> None:
        """Go on after `pause`."""
        if self.power is not Power.PAUSED:
            return
        self.power = Power.RUNNING
        self._note("machine.resumed")
        self._processor.pause(False)

    @property
    def starved(self) -> bool:
        """Whether it gets the processor in slices only."""
        return self._processor.starvation is not None

    def starve(self, starvation: Starvation | None) -> None:
        """Run in slices only from now on; None gives the machine its processor back."""
        self._note("machine.starved" if starvation else "machine.fed")
        self._processor.starve(starvation)

    def _go_on(self) -> None:
        """Catch up with what came while the machine did nothing.

        Which comes first, late timers or waiting datagrams, is luck, as in a real event loop.
        """
        self._executor.resume()
        if self._engine is None:
            return
        waiting = self.port.inbox.take()
        deadline = self._engine.next_deadline()
        late = deadline is not None and deadline < self.now
        if late and waiting and self._luck.random() < 0.5:
            self.perform(self._engine.on_deadline(self.now))
        for buffer, segment_size, source in waiting:
            self._take(buffer, segment_size, source)
        self._rearm()

    def move(self, endpoint: Endpoint) -> None:
        """Have another underlay address from now on, as when a NAT rebinds. Nobody is told."""
        self.port.move(endpoint)
        self._note("machine.moved", endpoint=str(endpoint))

    @property
    def endpoint(self) -> Endpoint:
        """Its underlay address."""
        return self.port.endpoint

    @property
    def engine(self) -> Engine:
        """The running engine.

        Raises:
            StateError: the machine is off. Nothing else.
        """
        if self._engine is None:
            raise StateError(f"{self.name} does not run")
        return self._engine

    @property
    def live(self) -> bool:
        """Whether an engine runs here, paused or not."""
        return self._engine is not None

    @property
    def stored(self) -> NodeState:
        """What the disk holds: where the next start would begin."""
        return NodeState.from_entries(self.disk.entries)

    # -- input -----------------------------------------------------------------------------------

    def receive(self, buffer: bytes, segment_size: int, source: Endpoint) -> Lost | None:
        """One read from the socket; says why it was lost, if it was."""
        if self._engine is None:
            return Lost.DOWN
        return self._take(buffer, segment_size, source)

    def _take(self, buffer: bytes, segment_size: int, source: Endpoint) -> Lost | None:
        if self._engine is None:
            return Lost.DOWN
        if not self._processor.runs:
            return None if self.port.inbox.push(buffer, segment_size, source) else Lost.FULL
        self.traffic.received(len(buffer), segment_size, source.ip_overhead)
        view = memoryview(buffer)
        self.perform(self._engine.on_datagrams(view, segment_size, source, self.now))
        return None

    def send_packet(self, packet: bytes) -> None:
        """An IP packet comes out of a pod and is read from the TUN."""
        self.perform(self.engine.on_packet(NO_OFFLOAD + packet, self.now))

    def add_pod(self, name: str, address: Address | None = None) -> PodView:
        """Attach a pod. Raises what `Engine.add_pod` raises."""
        pod, effects = self.engine.add_pod(name, f"/run/netns/{name}", address, self.now)
        self.perform(effects)
        return pod

    def remove_pod(self, name: str) -> PodView:
        """Detach a pod. Raises what `Engine.remove_pod` raises."""
        pod, effects = self.engine.remove_pod(name, self.now)
        self.perform(effects)
        return pod

    def mint_token(self, ttl: float = 3600.0) -> str:
        """A join token. Raises what `Engine.mint_token` raises."""
        token, effects = self.engine.mint_token(ttl, self.now)
        self.perform(effects)
        return token

    def leave(self) -> None:
        """Hand everything back; the machine goes off when that is done. Raises as the engine."""
        self.perform(self.engine.leave(self.now))

    def remove(self, name: str, *, force: bool = False) -> None:
        """Declare another node dead for ever. Raises what `Engine.remove` raises."""
        self.perform(self.engine.remove(name, self.now, force=force))

    def own_record(self) -> Item | None:
        """What the running node says of itself, as others may be given it."""
        return self.engine.parts.store.get(self.engine.parts.own_key)

    def snapshot(self) -> Snapshot:
        """What the node shows of itself."""
        return self.engine.snapshot(self.now)

    # -- effects ---------------------------------------------------------------------------------

    def perform(self, effects: Collection[Effect]) -> None:
        """Execute effects in order, then set the timer to what the engine wants next.

        For requests that have no verb of their own here:
        `machine.perform(machine.engine.on_endpoints(..., now))`.
        """
        self._executor.perform(effects)
        self._rearm()
        if self.acted is not None:
            self.acted(self)

    def _execute(self, effect: Effect) -> bool:
        """Whether to go on with the list that `effect` is from."""
        match effect:
            case SendDatagram(endpoint, datagram, segment_size):
                self.port.send(endpoint, datagram, segment_size)
            case Report(event, fields, debug):
                self.changes += 1
                trace, now = self._site.trace, self._site.clock.now
                trace.note(event, self.name, fields, now, debug=debug)
            case NetworkChanged():
                self.changes += 1
            case SetOffload():
                self._set_offload(effect)
            case ProbeAnswered():
                self.answered.append(effect)
            case Left(confirmed):
                self._note("node.left", confirmed=confirmed)
                self.left = True
                self._halt("machine.stopped")
                return False
            case _ if isinstance(effect, TalkEffect):
                self.asked.append(effect)
            case Renewed(certificate):
                self._executor.perform(self.engine.on_renewed(certificate, self.now))
                self._rearm()
            case _:
                raise StateError(f"the engine of {self.name} let {effect} out")
        return True

    def _on_not_stored(self, pending: list[Persist], why: str) -> None:
        self._note("disk.failed", why=why)
        self.perform(self.engine.on_persist_failed(pending, why, self.now))

    def _set_offload(self, effect: SetOffload) -> None:
        if effect.endpoint is None:
            return  # what reads return is the link's doing
        self.port.segment(effect.endpoint, effect.on)
        self._note("offload.set", what=effect.name, on=int(effect.on))

    def _transmit(self, endpoint: Endpoint, datagrams: memoryview, segment_size: int) -> bool:
        self.port.send(endpoint, bytes(datagrams), segment_size)
        return True

    def _deliver(self, packet: memoryview) -> bool:
        inner = bytes(packet[len(NO_OFFLOAD) :])
        self.delivered.append(inner)
        self._note("packet.delivered", size=len(inner))
        return True

    # -- time ------------------------------------------------------------------------------------

    def _rearm(self) -> None:
        if self._engine is not None and self._processor.runs:
            self._timer.arm(self._engine.next_deadline())

    def _wake(self) -> None:
        self.perform(self.engine.on_deadline(self.now))

    @property
    def now(self) -> float:
        """Monotonic seconds by its own clock: what its engine is told."""
        return self.time.now

    def set_clock(self, *, rate: float | None = None, step: float = 0.0) -> None:
        """Run its monotonic clock at another rate, or step its wall clock by so many seconds."""
        if rate is not None:
            self._timer.arm(None)
            self.time.set_rate(rate)
            self._rearm()
        self.time.step(step)
        if self._engine is not None:
            self._engine.on_clock(self.time.epoch)  # as the daemon does within seconds
        self._note("clock.set", rate="" if rate is None else rate, step=step)

    def _note(self, event: str, **fields: Scalar) -> None:
        self.changes += 1
        self._site.trace.note(event, self.name, fields, self._site.clock.now)
