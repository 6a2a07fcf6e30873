"""One node: every input goes in here, every effect comes out here.

    datagrams --> inbound --+--> packets, delivered at once
                            +--> handshakes --> sessions --+
                            +--> control messages ---------+--> peering, gossip, holdings
    TUN packets --> outbound --> datagrams, sent at once   |          |
    operator's requests, deadlines ------------------------+          v
                                                            effects for the driver

The parts do not know each other. They return effects; those that are meant for another part
(`SendControl`, `SessionUp`, `SessionDown`) are settled here, the rest leaves in order.

Error contract: inputs from the network never raise. Operators' requests raise RefusedError,
CapacityError or ConfigError and have then changed nothing.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from overlay.agenda import earliest
from overlay.answers import IcmpAnswers
from overlay.catalog.reader import Reader
from overlay.catalog.removals import removal_item
from overlay.certifying import Certifier
from overlay.config import Settings
from overlay.conflict import Conflict
from overlay.drops import DropReason
from overlay.effects import (
    Effect,
    RemovalShown,
    Report,
    SendControl,
    SendDatagram,
    SessionDown,
    SessionUp,
    StampRefused,
)
from overlay.errors import AuthError, WireError
from overlay.forwarding.inbound import Arrival, Control, Deliver, Handshake, Moved, Proven
from overlay.forwarding.sealer import Transmit
from overlay.gossip.letter import GossipMessage
from overlay.handover import inheritance, take_over
from overlay.invariants.watch import Watch
from overlay.keys import SigningKey
from overlay.knowledge import TEND_INTERVAL
from overlay.manners import Manners
from overlay.parts import Parts
from overlay.renewal import present_identity
from overlay.requests import Requests
from overlay.session.handshake import AnsweredError
from overlay.snapshots import take_snapshot
from overlay.state import NodeState
from overlay.steward import Steward
from overlay.talk import talk_effects
from overlay.types import Endpoint, Entropy, NodeId
from overlay.views import Snapshot
from overlay.wire.certificate import Identity
from overlay.wire.cluster import Cluster
from overlay.wire.control import is_upkeep
from overlay.wire.messages import (
    BlockRequest,
    Delta,
    Goodbye,
    JoinRequest,
    LaneProbe,
    LaneProbeReply,
    Lanes,
    Message,
    Refusal,
)


class Engine(Requests):
    """One node of the overlay.

    Args:
        identity: its keys and certificate.
        cluster: the cluster it is a member of.
        psk: the cluster's pre-shared key, 32 bytes.
        state: what was stored when it last ran.
        settings: timing, limits, MTUs.
        entropy: random bytes for keys and indexes.
        rng: random choices that need not be secret.
        epoch: Unix seconds at monotonic zero; wall-clock time is `epoch + now`.
        endpoints: underlay addresses at which others can reach this node.
        deliver: writes a packet (virtio_net_hdr first) to the TUN.
        transmit: sends datagrams.
        authorities: private keys of authorities, on a node that admits members.
        version: software version shown to others.
        lanes: processes that carry its packets, this one included.
        reader: reads gossiped items; its own unless nodes of one process share one.
        boot_id: of the machine's present boot: pods of another one are gone.
        inherited: what the engine of the process before handed over (`hand_over`), if it did. What
            is no use is reported by `start`, which then is one as after a restart.

    Attributes:
        inherited: whether it goes on where the engine before it stopped.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        cluster: Cluster,
        psk: bytes,
        state: NodeState,
        settings: Settings,
        entropy: Entropy,
        rng: random.Random,
        epoch: float,
        endpoints: tuple[Endpoint, ...],
        deliver: Deliver,
        transmit: Transmit,
        authorities: Sequence[SigningKey] = (),
        version: str = "",
        lanes: int = 1,
        reader: Reader | None = None,
        boot_id: str = "",
        inherited: bytes | None = None,
    ) -> None:
        self.identity = identity = present_identity(identity, state.certificate)
        self.cluster = cluster
        self._restored, whose = state, (identity.node, cluster.id, boot_id)
        self._sections, self._why_not = inheritance(inherited, state, whose)
        self.inherited = self._sections is not None
        current = replace(state, boot=state.boot + (not self.inherited), items=())
        self.parts = Parts(
            identity=identity,
            cluster=cluster,
            psk=psk,
            state=current,
            settings=settings,
            entropy=entropy,
            rng=rng,
            epoch=epoch,
            deliver=deliver,
            transmit=transmit,
            authorities=authorities,
            version=version,
            lanes=lanes,
            reader=reader,
        )
        self.parts.record.endpoints = endpoints
        self.outbound, self.ledger = self.parts.outbound, self.parts.ledger
        self._answers = IcmpAnswers(deliver)
        self._tend_at: float | None = None
        self.watch = Watch(self)
        steward = Steward(self.parts, identity=identity, cluster=cluster, disk=state)
        self._serve(steward, entropy, boot_id)
        self.landlord = steward.landlord
        self._manners = Manners(self.parts, steward)
        self._certifier = Certifier(self.parts, steward, identity)

    # -- life ----------------------------------------------------------------------------------

    def start(self, now: float) -> list[Effect]:
        """Take up the stored state: announce the record, greet some members, seek a block."""
        parts, state, sections = self.parts, self._restored, self._sections
        self._restored, self._sections = NodeState(), None
        self._tend_at = now + TEND_INTERVAL
        if sections is not None:
            return self._settle(take_over(self._hands(), sections, state, now), now)
        parts.knowledge.restore(map(parts.reader.keep, state.items), now)
        parts.tell_time(now)
        effects = self._steward.start(now)
        for node in parts.knowledge.to_greet():
            effects += parts.peering.connect(node, now)
        if self._why_not:
            effects.insert(0, Report("handover.refused", {"why": self._why_not}))
        return self._settle(effects, now)

    # -- packets -------------------------------------------------------------------------------

    def on_datagrams(
        self, buffer: memoryview, segment_size: int, source: Endpoint, now: float
    ) -> list[Effect]:
        """Take what one read of the UDP socket gave; see `Inbound.on_datagrams_untrusted`."""
        arrivals = self.parts.inbound.on_datagrams_untrusted(buffer, segment_size, source, now)
        if not arrivals:
            return []
        effects: list[Effect] = []
        for arrival in arrivals:
            # One by one: a session that comes up must be in use before the message behind it.
            effects += self._settle(self._on_arrival(arrival, source, now), now)
        return effects

    def on_packet(self, packet: bytes, now: float) -> list[Effect]:
        """Take one packet (virtio_net_hdr first) and send it. The daemon uses `outbound.room()`."""
        self.outbound.room()[: len(packet)] = packet
        self.outbound.accept(len(packet), now)
        return self.flush(now)

    def flush(self, now: float) -> list[Effect]:
        """End of a pass over the TUN: send what was packed, start the sessions it needs."""
        outbound = self.outbound
        outbound.flush(now)
        if outbound.rejected:
            holdings = self.parts.holdings
            rejected, outbound.rejected = outbound.rejected, []
            self._answers.answer(rejected, holdings.address, holdings.address6, now)
        if not outbound.wanted and not outbound.began:
            return []
        effects = self.parts.peering.mtus.on_packets(now)
        wanted, outbound.wanted = outbound.wanted, set()
        for node in sorted(wanted):
            effects += self.parts.peering.connect(node, now)
        return self._settle(effects, now)

    # -- arrivals ------------------------------------------------------------------------------

    def _on_arrival(self, arrival: Arrival, source: Endpoint, now: float) -> list[Effect]:
        self.parts.tell_time(now)
        if not isinstance(arrival, Control) and not self.parts.outside.is_underlay(source):
            # The pod network must never carry itself. What such a peer says under a session it
            # has already is heard; its address is not taken.
            if isinstance(arrival, Handshake):
                self.ledger.drop(DropReason.OVERLAY_SOURCE)
            return []
        match arrival:
            case Handshake(datagram):
                return self._on_handshake(datagram, source, now)
            case Proven(keypair):
                return self.parts.sessions.on_opened(keypair, source, now)
            case Moved(keypair):
                return self.parts.peering.on_moved(keypair, source, now)
            case Control(keypair) if self._is_ending(keypair.node):
                # The session is kept for one last message of ours; nothing said in it counts.
                self.ledger.drop(DropReason.BAD_CERTIFICATE)
                return []
            case Control():
                return self._on_control(arrival, source, now)

    def _is_ending(self, node: NodeId | None) -> bool:
        return node in self.parts.catalog.removed or self.parts.distrust.is_ending(node)

    def _on_handshake(self, datagram: bytes, source: Endpoint, now: float) -> list[Effect]:
        sessions = self.parts.sessions
        cookies = sessions.cookies_sent
        try:
            effects = sessions.on_handshake_untrusted(datagram, source, now)
        except AuthError as error:
            self.ledger.drop(error.reason)
            return [SendDatagram(source, error.answer)] if isinstance(error, AnsweredError) else []
        except WireError:
            self.ledger.drop(DropReason.BAD_HANDSHAKE)
            return []
        if sessions.cookies_sent != cookies:
            self.ledger.drop(DropReason.UNDER_LOAD)
        else:
            self.ledger.consumed_out += 1
        return effects

    def _on_control(self, control: Control, source: Endpoint, now: float) -> list[Effect]:
        keypair = control.keypair
        message = self._manners.read_untrusted(keypair.node, control.message, now)
        if message is None:
            return []
        if keypair.node is None:
            if not isinstance(message, JoinRequest):
                self.ledger.drop(DropReason.BAD_CONTROL)
                return []
            self.ledger.consumed_out += 1
            return self._steward.on_join_request(keypair, message, source, now)
        if isinstance(message, Goodbye) and keypair is not self.parts.sessions.current(
            keypair.node
        ):
            # From a machine that another one with its identity has taken the session over from.
            self.ledger.consumed_out += 1
            return []
        effects = self._on_message(keypair.node, message, now)
        if effects is None:
            effects = self.parts.peering.on_message(keypair.node, message, control.whole, now)
        elif not is_upkeep(control.message):
            self.parts.peering.on_used(keypair.node)
        if effects is None:
            self.ledger.drop(DropReason.BAD_CONTROL)
            return []
        self.ledger.consumed_out += 1
        return effects

    def _on_message(self, node: NodeId, message: Message, now: float) -> list[Effect] | None:
        """A member's message; None when it is about the path, or out of place."""
        parts = self.parts
        if isinstance(message, Delta):
            message = Delta(tuple(map(parts.reader.keep, message.items)))
        if isinstance(message, GossipMessage):
            return self._manners.hear(node, message, now) + self._recall(message, now)
        match message:
            case Lanes() | LaneProbe() | LaneProbeReply():
                effects = parts.lanes.on_message(node, message, now)
            case BlockRequest():
                effects = self._steward.on_block_request(node, message, now)
            case Refusal():
                effects = parts.seeker.on_refusal(node, message, now)
                effects += self._certifier.on_refusal(node, message)
                return effects or talk_effects(node, message)
            case Goodbye():
                effects = parts.sessions.close(node, now)
            case _:
                done = self._certifier.on_message(node, message, now)
                return talk_effects(node, message) if done is None else done
        return effects

    def _recall(self, message: GossipMessage, now: float) -> list[Effect]:
        """A member shows what this node has said, perhaps before its state was put back."""
        items = message.items if isinstance(message, Delta) else ()
        own = [item for item in items if item.key == self.parts.own_key]
        done = [self._steward.conflict.recall(item, now) for item in own]
        found = [effect for effects in done for effect in effects or ()]
        return [*self._steward.own_changed(now), *found] if found else []

    # -- settling ------------------------------------------------------------------------------

    def _settle(self, effects: Iterable[Effect], now: float) -> list[Effect]:
        """Execute the effects that one part has for another; return the rest, in order."""
        waiting = deque(effects)
        settled: list[Effect] = []
        while waiting:
            effect = waiting.popleft()
            if isinstance(effect, SendDatagram):  # as most are
                settled.append(effect)
                continue
            match effect:
                case SendControl(node, message, once):
                    more = self.parts.peering.send(node, message, now, once=once)
                case SessionUp(node, endpoint):
                    more = self.parts.peering.on_session_up(node, endpoint, now)
                    more += self.parts.gossip.greet(node, now)
                    more += self.parts.lanes.on_session_up(node, now)
                    self._steward.conflict.on_session_up(now)
                case StampRefused(node):
                    more = self._steward.conflict.on_stamp_refused(node, now)
                case RemovalShown(node, proof):
                    shown = Delta((removal_item(self.parts.local, proof),))
                    more = self._on_message(node, shown, now) or []
                case SessionDown(node, why):
                    self.parts.peering.on_session_down(node)
                    name = self.parts.name_of(node)
                    more = [Report("session.down", {"peer": name, "why": why}, debug=True)]
                    more += self.parts.lanes.on_session_down(node)
                case _:
                    settled.append(effect)
                    continue
            waiting.extendleft(reversed(more))
        # Lanes first: they shall have a key before the peer learns that it may use it.
        orders = self.parts.lanes.orders(now)
        return [*orders, *settled] if orders else settled

    # -- time ----------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do next."""
        parts = self.parts
        return earliest(
            self._steward.next_deadline(),
            self._steward.conflict.next_deadline(),
            self._certifier.next_deadline(),
            self._tend_at,
            parts.peering.next_deadline(),
            parts.gossip.next_deadline(),
            parts.seeker.next_deadline(),
            parts.lanes.next_deadline(),
            parts.reassembly.next_deadline(),
        )

    def on_deadline(self, now: float) -> list[Effect]:
        """Everything that is due."""
        parts = self.parts
        parts.tell_time(now)
        parts.inbound.expire(now)
        effects = self._steward.on_deadline(now)
        effects += self._steward.conflict.on_deadline(now) + self._certifier.on_deadline(now)
        if self._tend_at is not None and now >= self._tend_at:
            self._tend_at = now + TEND_INTERVAL
            effects += parts.knowledge.tend(now) + parts.tending.on_look(now) + self.watch.tend(now)
            effects += self._manners.on_look(now) + parts.sessions.on_look(parts.paths, now)
        effects += parts.peering.on_deadline(now)
        effects += parts.gossip.on_deadline(now)
        effects += parts.seeker.on_deadline(now) + parts.lanes.on_deadline(now)
        return self._settle(effects, now)

    # -- observation ---------------------------------------------------------------------------

    @property
    def conflict(self) -> Conflict:
        """Whether another machine has this node's identity."""
        return self._steward.conflict

    @property
    def not_stored(self) -> str:
        """Why the state could not be stored; empty while it can."""
        return self._steward.not_stored

    def snapshot(self, now: float) -> Snapshot:
        """Everything this node shows of itself."""
        return take_snapshot(self, now)
