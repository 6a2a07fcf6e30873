"""One simulated machine: a disk, a socket, a TUN, and an engine while it runs.

It stands where the daemon's driver stands and keeps the same promises: effects are executed in
order, a `Persist` that fails discards what follows it in its list, one timer follows the engine's
next deadline.

       underlay --receive--> +--------+ --effects--> underlay, disk, trace
         send_packet ------> | engine | --deliver--> `delivered`
              alarm -------> +--------+ --next_deadline--> alarm
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from overlay.catalog.removals import is_removed
from overlay.effects import (
    BenchAnswered,
    BenchAsked,
    BenchEffect,
    BenchEnded,
    Effect,
    Left,
    NetworkChanged,
    Persist,
    ProbeAnswered,
    Report,
    SendControl,
    SendDatagram,
    SessionDown,
    SessionUp,
    SetOffload,
    TellDaemon,
    TellLane,
)
from overlay.engine import Engine
from overlay.errors import StateError
from overlay.keys import SigningKey
from overlay.sim.clock import Alarm
from overlay.sim.faults import Disk, Power
from overlay.sim.link import Lost, cut
from overlay.sim.underlay import Site
from overlay.state import NodeState
from overlay.types import Address, Endpoint
from overlay.views import PodView, Snapshot
from overlay.wire.certificate import Identity
from overlay.wire.cluster import Cluster
from overlay.wire.virtio import NO_OFFLOAD

SOCKET_BUFFER: Final = 212_992
"""Bytes that wait while the machine is paused: Linux' default receive buffer."""

MAX_IDLE_WAKES: Final = 1000
"""Deadlines in a row at one instant. An engine whose deadline does not move would stop time."""


@dataclass(frozen=True, slots=True)
class Membership:
    """What a machine has from the day it became a member, beside its changing state."""

    identity: Identity
    cluster: Cluster
    psk: bytes
    authority: SigningKey | None = None
    """The authority's key, on the machine that admits others."""


class Machine:
    """One machine of a world. Made by `World`; starts when told to.

    Attributes:
        name: unique in the world.
        endpoint: its underlay address.
        disk: what survives a crash.
        power: running, paused or off.
        left: whether its node has left the cluster.
        delivered: packets that came out of its TUN, in order.
        answered: replies to probes it was asked for.
        changes: grows whenever what it shows of itself may have changed.
    """

    def __init__(
        self, *, name: str, endpoint: Endpoint, site: Site, seed: str, membership: Membership
    ) -> None:
        self.name = name
        self.endpoint = endpoint
        self.membership = membership
        self.disk = Disk(NodeState().entries())
        self.power = Power.OFF
        self.left = False
        self.delivered: list[bytes] = []
        self.answered: list[ProbeAnswered] = []
        self.benched: list[BenchEffect] = []
        self.changes = 0
        self._site = site
        # Both go on after a restart, as a machine's entropy does: no key is made twice.
        self._rng = random.Random(f"{seed}/{name}/choices")
        self._entropy = random.Random(f"{seed}/{name}/entropy").randbytes
        self._engine: Engine | None = None
        self._alarm: Alarm | None = None
        self._alarm_at: float | None = None
        self._idle_wakes = 0
        self._singly: set[Endpoint] = set()  # whom its kernel segments nothing for
        self._waiting: deque[tuple[bytes, int, Endpoint]] = deque()
        self._waiting_bytes = 0
        site.underlay.attach(name, endpoint, self.receive)

    # -- power -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemon from what the disk holds; it refuses when its node has left.

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
            epoch=site.epoch,
            endpoints=(self.endpoint,),
            deliver=self._deliver,
            transmit=self._transmit,
            authority=member.authority,
            version="simulated",
            reader=site.reader(member.cluster),
        )
        self.power = Power.RUNNING
        self._note("machine.started")
        self.perform(self._engine.start(self._now))

    def stop(self) -> None:
        """Stop the daemon in good order."""
        self.perform(self.engine.stop(self._now))
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
        self._waiting.clear()
        self._waiting_bytes = 0
        self._arm(None)
        self._note(event)

    def pause(self) -> None:
        """Stop without noticing: datagrams wait in the socket buffer, deadlines come late."""
        if self.power is Power.RUNNING:
            self.power = Power.PAUSED
            self._arm(None)
            self._note("machine.paused")

    def resume(self) -> None:
        """Go on after `pause`."""
        if self.power is not Power.PAUSED:
            return
        self.power = Power.RUNNING
        self._note("machine.resumed")
        waiting, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
        self._rearm()
        for buffer, segment_size, source in waiting:
            self.receive(buffer, segment_size, source)

    def move(self, endpoint: Endpoint) -> None:
        """Have another underlay address from now on, as when a NAT rebinds. Nobody is told."""
        self._site.underlay.detach(self.endpoint)
        self.endpoint = endpoint
        self._site.underlay.attach(self.name, endpoint, self.receive)
        self._note("machine.moved", endpoint=str(endpoint))

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
        if self.power is Power.PAUSED:
            if self._waiting_bytes + len(buffer) > SOCKET_BUFFER:
                return Lost.FULL
            self._waiting.append((buffer, segment_size, source))
            self._waiting_bytes += len(buffer)
            return None
        view = memoryview(buffer)
        self.perform(self._engine.on_datagrams(view, segment_size, source, self._now))
        return None

    def send_packet(self, packet: bytes) -> None:
        """An IP packet comes out of a pod and is read from the TUN."""
        self.perform(self.engine.on_packet(NO_OFFLOAD + packet, self._now))

    def add_pod(self, name: str, address: Address | None = None) -> PodView:
        """Attach a pod. Raises what `Engine.add_pod` raises."""
        pod, effects = self.engine.add_pod(name, f"/run/netns/{name}", address, self._now)
        self.perform(effects)
        return pod

    def remove_pod(self, name: str) -> PodView:
        """Detach a pod. Raises what `Engine.remove_pod` raises."""
        pod, effects = self.engine.remove_pod(name, self._now)
        self.perform(effects)
        return pod

    def mint_token(self, ttl: float = 3600.0) -> str:
        """A join token. Raises what `Engine.mint_token` raises."""
        token, effects = self.engine.mint_token(ttl, self._now)
        self.perform(effects)
        return token

    def leave(self) -> None:
        """Hand everything back; the machine goes off when that is done. Raises as the engine."""
        self.perform(self.engine.leave(self._now))

    def remove(self, name: str, *, force: bool = False) -> None:
        """Declare another node dead for ever. Raises what `Engine.remove` raises."""
        self.perform(self.engine.remove(name, self._now, force=force))

    def snapshot(self) -> Snapshot:
        """What the node shows of itself."""
        return self.engine.snapshot(self._now)

    # -- effects ---------------------------------------------------------------------------------

    def perform(self, effects: Iterable[Effect]) -> None:
        """Execute effects in order, then set the timer to what the engine wants next.

        For requests that have no verb of their own here:
        `machine.perform(machine.engine.on_endpoints(..., now))`.
        """
        waiting = deque(effects)
        while waiting:
            effect = waiting.popleft()
            if isinstance(effect, Persist):
                if not self._persist([effect, *(e for e in waiting if isinstance(e, Persist))]):
                    break
            elif not self._execute(effect):
                break
        self._rearm()

    def _execute(self, effect: Effect) -> bool:
        """Whether to go on with the list that `effect` is from."""
        match effect:
            case SendDatagram(endpoint, datagram, segment_size):
                self._send(endpoint, datagram, segment_size)
            case Report(event, fields):
                self.changes += 1
                self._site.trace.note(event, self.name, fields, self._now)
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
            case BenchAsked() | BenchAnswered() | BenchEnded():
                self.benched.append(effect)
            case (
                Persist() | SendControl() | SessionUp() | SessionDown() | TellLane() | TellDaemon()
            ):
                raise StateError(f"the engine of {self.name} let {effect} out")
            case _:
                assert_never(effect)
        return True

    def _persist(self, pending: Sequence[Persist]) -> bool:
        """Store the first of these; the others are in the same list, behind it."""
        failed = self.disk.write(pending[0].changes)
        if failed is None:
            return True
        self._note("disk.failed", why=failed)
        self.perform(self.engine.on_persist_failed(pending, failed, self._now))
        return False

    def _set_offload(self, effect: SetOffload) -> None:
        if effect.endpoint is None:
            return  # what reads return is the link's doing
        (self._singly.discard if effect.on else self._singly.add)(effect.endpoint)
        self._note("offload.set", what=effect.name, on=int(effect.on))

    def _send(self, endpoint: Endpoint, datagrams: bytes, segment_size: int) -> None:
        if endpoint in self._singly:
            for datagram in cut(datagrams, segment_size):
                self._site.underlay.send(self.name, self.endpoint, endpoint, datagram, 0)
            return
        self._site.underlay.send(self.name, self.endpoint, endpoint, datagrams, segment_size)

    def _transmit(self, endpoint: Endpoint, datagrams: memoryview, segment_size: int) -> bool:
        self._send(endpoint, bytes(datagrams), segment_size)
        return True

    def _deliver(self, packet: memoryview) -> bool:
        inner = bytes(packet[len(NO_OFFLOAD) :])
        self.delivered.append(inner)
        self._site.trace.note("packet.delivered", self.name, {"size": len(inner)}, self._now)
        return True

    # -- time ------------------------------------------------------------------------------------

    def _rearm(self) -> None:
        if self._engine is not None and self.power is Power.RUNNING:
            self._arm(self._engine.next_deadline())

    def _arm(self, deadline: float | None) -> None:
        if deadline == self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = deadline
        self._alarm = None if deadline is None else self._site.clock.at(deadline, self._wake)

    def _wake(self) -> None:
        late = self._alarm_at is not None and self._alarm_at < self._now
        self._alarm_at = self._alarm = None
        self.perform(self.engine.on_deadline(self._now))
        stuck = self._alarm_at is not None and self._alarm_at <= self._now
        self._idle_wakes = self._idle_wakes + 1 if stuck or late else 0
        if self._idle_wakes > MAX_IDLE_WAKES:
            raise StateError(f"{self.name} wants to be woken at {self._alarm_at} over and over")

    @property
    def _now(self) -> float:
        return self._site.clock.now

    def _note(self, event: str, **fields: str | int) -> None:
        self.changes += 1
        self._site.trace.note(event, self.name, fields, self._now)
