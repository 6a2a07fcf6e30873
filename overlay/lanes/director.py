"""The daemon's side of its lanes: tells each worker what it needs, and the peers what there is.

A worker is told differences. The director remembers what each was told and, whenever a session, a
path or the routes may have changed, compares that with how things are. A worker that was just born
was told nothing, so it gets everything by the same code.

    Ready --> born: everything but keypairs made before; all sessions are replaced, spread a little
    gone  --> its counters are kept, peers are told that the lane does not receive

A keypair is for a worker only if it was made after that worker was born. The one before it may have
used any counter of older ones, and nobody can know which. So a session whose keypair was half open
when a worker was born is replaced as soon as it is up.

Peers learn in `Lanes` how many lanes there are and which of them receive. It is repeated until it
was answered: at a peer that did not hear it, lane 0 could not open what our other lanes seal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import count
from typing import Final

from overlay.effects import Effect, SendControl, TellLane
from overlay.errors import WireError
from overlay.lanes.books import Books
from overlay.lanes.messages import (
    Answered,
    Down,
    KeyGone,
    Local,
    Order,
    Peer,
    PeerGone,
    Probed,
    Ready,
    Stats,
    TooBig,
    Traffic,
    Use,
    Wanted,
    Worn,
    decode_report,
    encode,
    key_of,
    route_changes,
)
from overlay.peering import Peering
from overlay.routing.table import RouteTable
from overlay.session.sessions import Sessions
from overlay.session.transport import Keypair
from overlay.types import Address, NodeId, Prefix
from overlay.wire import control
from overlay.wire.messages import LANES_LIMIT, LaneProbe, LaneProbeReply, Lanes

TELL_WAITS: Final = (0.2, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds after each unanswered `Lanes`; the last one for ever."""

SPREAD: Final = 0.01
"""Seconds between the handshakes that replace sessions after a worker was born: a hundred per
second are half of what a peer answers without asking for cookies."""

LOOK_INTERVAL: Final = 1.0
"""Between looks at all peers, beside those that are known to have changed."""

UPKEEP_BYTES: Final = 1000
"""What a lane exchanges with a peer between two reports to keep its ways proven, at most. More than
that are packets."""

RENEW_AGAIN: Final = 3.0
"""Until it is checked that a replaced session came about."""


class _Told:
    """What one worker knows."""

    def __init__(self, born_at: float) -> None:
        self.born_at = born_at
        self.local: Local | None = None
        self.generation = -1
        self.routes: dict[Prefix, NodeId] = {}
        self.peers: dict[NodeId, Peer] = {}
        self.keys: dict[NodeId, set[int]] = {}
        self.uses: dict[NodeId, int] = {}


class _Telling:
    """A `Lanes` that was not answered yet."""

    def __init__(self, token: int, now: float) -> None:
        self.token = token
        self.tries = 0
        self.next_at = now


class Director:
    """All lanes of a node but lane 0.

    Args:
        lanes: how many the node has, lane 0 included: 1 to 16.
        sessions, peering, routes: what workers are told about.
        addresses: gives the node's present addresses in the pod network.
    """

    def __init__(
        self,
        *,
        lanes: int,
        sessions: Sessions,
        peering: Peering,
        routes: RouteTable,
        addresses: Callable[[], tuple[Address | None, Address | None]],
    ) -> None:
        assert 1 <= lanes <= LANES_LIMIT
        self.lanes = lanes
        self.books = Books()
        self._sessions = sessions
        self._peering = peering
        self._routes = routes
        self._addresses = addresses
        self._workers: dict[int, _Told] = {}
        self.of_peers: dict[NodeId, Lanes] = {}  # what they said of their lanes
        self._telling: dict[NodeId, _Telling] = {}
        self._renewing: dict[NodeId, float] = {}
        self._tokens = count(1)
        self._look_at = 0.0
        self._retiring = False

    # -- sessions ----------------------------------------------------------------------------------

    def on_session_up(self, node: NodeId, now: float) -> list[Effect]:
        """A keypair is in use. The peer may have started anew: tell it what lanes there are."""
        if self.lanes == 1:
            return []
        if not self._is_served(node):
            self._renewing.setdefault(node, now)
        return self._tell(node, now)

    def on_session_down(self, node: NodeId) -> list[Effect]:
        """No session will come: what waits for it in workers is lost."""
        self._telling.pop(node, None)
        self._renewing.pop(node, None)
        self.of_peers.pop(node, None)
        down = encode(Down(node))
        return [TellLane(lane, down) for lane, told in self._workers.items() if node in told.peers]

    def _tell(self, node: NodeId, now: float) -> list[Effect]:
        self._telling[node] = _Telling(next(self._tokens), now)
        return self._tell_again(node, now)

    def _tell_again(self, node: NodeId, now: float) -> list[Effect]:
        telling = self._telling[node]
        telling.next_at = now + TELL_WAITS[min(telling.tries, len(TELL_WAITS) - 1)]
        telling.tries += 1
        up = 1 if self._retiring else 1 | sum(1 << lane for lane in self._workers)
        return [SendControl(node, control.encode(Lanes(self.lanes, up, telling.token)))]

    def tell_all(self, now: float) -> list[Effect]:
        """Tell all peers what lanes there are, until they have answered."""
        effects: list[Effect] = []
        for node, path in self._peering.paths.items():
            if path.keypair is not None:
                effects += self._tell(node, now)
        return effects

    def retire(self, now: float, *, retiring: bool = True) -> list[Effect]:
        """All other lanes end soon: peers are told first, so that nothing is on its way to them."""
        self._retiring = retiring
        return self.tell_all(now)

    @property
    def is_told(self) -> bool:
        """Whether all peers have answered what they were told last."""
        return not self._telling

    # -- messages of peers -------------------------------------------------------------------------

    def on_message(
        self, node: NodeId, message: Lanes | LaneProbe | LaneProbeReply, now: float
    ) -> list[Effect]:
        """What a member says about its lanes, or asks about ours."""
        match message:
            case Lanes(lanes, _, token):
                self.of_peers[node] = message
                self._sessions.set_lanes(node, lanes)
                reply: Effect = SendControl(node, control.encode(LaneProbeReply(0, token)))
                return [*self._feed_all({node}, now), reply]
            case LaneProbe(lane, token):
                return [SendControl(node, control.encode(LaneProbeReply(lane, token)))]
            case LaneProbeReply(0, token):
                if node in self._telling and self._telling[node].token == token:
                    del self._telling[node]
            case LaneProbeReply(lane, token):
                if lane in self._workers:
                    return [TellLane(lane, encode(Answered(node, token)))]
        return []

    # -- workers -----------------------------------------------------------------------------------

    def on_lane(self, lane: int, data: bytes | None, now: float) -> list[Effect]:
        """A worker says something; None: it is gone.

        Raises:
            WireError: it is no report. Nothing else.
        """
        if data is None:
            return self._on_lost(lane, now)
        report = decode_report(data)
        effects: list[Effect] = []
        match report:
            case Ready():
                effects = self._on_born(lane, now)
            case Stats():
                self.books.on_stats(lane, report)
            case Traffic():
                effects = self._on_traffic(lane, report, now)
            case Wanted(nodes):
                effects = [effect for node in nodes for effect in self._on_wanted(lane, node, now)]
            case Worn(nodes):
                known = [node for node in nodes if self._knows(node)]
                effects = [effect for node in known for effect in self._peering.renew(node, now)]
            case Probed(node, probe_lane, token) if self._knows(node):
                effects = [SendControl(node, control.encode(LaneProbeReply(probe_lane, token)))]
            case TooBig(node):
                path = self._peering.paths.get(node)
                if path is not None and path.endpoint is not None:
                    effects = self._peering.mtus.on_too_big(path.endpoint, now)
        return effects

    def _knows(self, node: NodeId) -> bool:
        return node in self._peering.paths

    def _on_wanted(self, lane: int, node: NodeId, now: float) -> list[Effect]:
        effects = self._peering.connect(node, now)
        path = self._peering.paths.get(node)
        if path is None or path.endpoint is None:
            return [TellLane(lane, encode(Down(node)))]
        return effects

    def _on_traffic(self, lane: int, report: Traffic, now: float) -> list[Effect]:
        """What a lane has exchanged with its peers until now."""
        effects: list[Effect] = []
        for node, tx_bytes, rx_bytes, heard_at, _ in report.peers:
            path, before = self._peering.paths.get(node), self.books.peer_of(lane, node)
            if path is None:
                continue
            sent, received = tx_bytes - before.tx_bytes, rx_bytes - before.rx_bytes
            path.tx_elsewhere += sent
            path.used += sent + received > UPKEEP_BYTES
            if sent > UPKEEP_BYTES:
                effects += self._peering.mtus.on_burst_elsewhere(node, now)
            if heard_at is not None:
                path.heard_at = max(path.heard_at or heard_at, heard_at)
        self.books.on_traffic(lane, report)
        return effects

    def _on_born(self, lane: int, now: float) -> list[Effect]:
        if not 0 < lane < self.lanes:
            raise WireError(f"there is no lane {lane}")
        self._workers[lane] = _Told(now)
        at = now
        for node in self._peering.paths:
            self._renewing[node] = at
            at += SPREAD
        return [*self.tell_all(now), *self._feed_all(set(self._peering.paths), now)]

    def _on_lost(self, lane: int, now: float) -> list[Effect]:
        self.books.close(lane)
        if self._workers.pop(lane, None) is None:
            return []
        return self.tell_all(now)

    # -- feeding -----------------------------------------------------------------------------------

    def orders(self, now: float) -> list[Effect]:
        """What workers must be told since the last call. To be executed before all else."""
        if not (self._workers or self._peering.is_touched or self._sessions.is_changed):
            return []
        touched = self._peering.take_touched() | self._sessions.take_changed()
        if self._workers and now >= self._look_at:
            self._look_at = now + LOOK_INTERVAL
            touched |= self._peering.paths.keys()
        for node in touched:
            if not self._knows(node):
                self.books.forget(node)
                self.of_peers.pop(node, None)
                self._telling.pop(node, None)
                self._renewing.pop(node, None)
        return self._feed_all(touched, now)

    def _feed_all(self, nodes: set[NodeId], now: float) -> list[Effect]:
        return [
            TellLane(lane, encode(order))
            for lane, told in self._workers.items()
            for order in [
                *self._news(told),
                *(order for node in sorted(nodes) for order in self._about(told, node, now)),
            ]
        ]

    def _news(self, told: _Told) -> list[Order]:
        """The node's own addresses, and the routes."""
        news: list[Order] = []
        local = Local(*[str(address or "") for address in self._addresses()])
        if told.local != local:
            told.local = local
            news.append(local)
        if told.generation != self._routes.generation:
            told.generation = self._routes.generation
            routes = {entry.prefix: entry.node for entry in self._routes.entries()}
            news += route_changes(told.routes, routes)
            told.routes = routes
        return news

    def _about(self, told: _Told, node: NodeId, now: float) -> list[Order]:
        path = self._peering.paths.get(node)
        if path is None:
            return self._about_nobody(told, node)
        orders: list[Order] = []
        current = self._sessions.current(node)
        lanes = self.of_peers.get(node, Lanes(1, 1, 0))
        peer = Peer(
            node=node,
            host=path.endpoint.host if path.endpoint else "",
            port=path.endpoint.port if path.endpoint else 0,
            path_mtu=path.path_mtu,
            lanes=lanes.count,
            up=lanes.up,
            live=current is not None and current.usable(now),
            singly=self._peering.trials.is_singly(node),
        )
        if told.peers.get(node) != peer:
            told.peers[node] = peer
            orders.append(peer)
        return [*orders, *self._about_keys(told, node, current)]

    @staticmethod
    def _about_nobody(told: _Told, node: NodeId) -> list[Order]:
        told.keys.pop(node, None)
        told.uses.pop(node, None)
        return [PeerGone(node)] if told.peers.pop(node, None) else []

    def _about_keys(self, told: _Told, node: NodeId, current: Keypair | None) -> list[Order]:
        orders: list[Order] = []
        known = told.keys.setdefault(node, set())
        held = {
            keypair.local_index: keypair
            for keypair in self._sessions.held(node)
            if keypair.created_at > told.born_at
        }
        lane = next(lane for lane, one in self._workers.items() if one is told)
        orders += [key_of(node, held[index], lane) for index in held if index not in known]
        use = current.local_index if current and current.local_index in held else 0
        if told.uses.get(node, 0) != use:
            orders.append(Use(node, use))
        orders += [KeyGone(index) for index in known if index not in held]
        told.keys[node], told.uses[node] = set(held), use
        return orders

    # -- time --------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do next."""
        if not self._telling and not self._renewing:
            return None
        telling = min((one.next_at for one in self._telling.values()), default=math.inf)
        due = min(telling, min(self._renewing.values(), default=math.inf))
        return None if due == math.inf else due

    def on_deadline(self, now: float) -> list[Effect]:
        """Repeat what was not answered, replace the sessions whose turn it is."""
        effects: list[Effect] = []
        for node in [node for node, one in self._telling.items() if now >= one.next_at]:
            effects += self._tell_again(node, now)
        for node in [node for node, at in self._renewing.items() if now >= at]:
            if self._is_served(node):
                del self._renewing[node]
            else:
                self._renewing[node] = now + RENEW_AGAIN
                effects += self._peering.renew(node, now)
        return effects

    def _is_served(self, node: NodeId) -> bool:
        """Whether all workers have the keypair in use, or there is none: no session to replace."""
        current = self._sessions.current(node)
        return current is None or all(
            current.created_at > told.born_at for told in self._workers.values()
        )

    def check_invariants(self) -> None:
        """Assert what must always hold; called by tests after each step."""
        for told in self._workers.values():
            assert told.peers.keys() <= self._peering.paths.keys()
            for node, keys in told.keys.items():
                born = {one.local_index: one.created_at for one in self._sessions.held(node)}
                assert all(born[index] > told.born_at for index in keys if index in born)
