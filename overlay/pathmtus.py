"""The size of segments on the paths to all peers: probes are sent, answers make segments larger.

              first packets                       searched
    (base) ------------------> "searching" ------------------> "settled"
       ^                                                           |
       '-- a confirmation or search is due, and no packets went since the last; another endpoint

`overlay.routing.mtu` decides for one path; here its sizes become sealed probes, and its result
becomes the path's. Only packets need more than the base size, so only paths that carry some are
measured: most sessions of a large cluster carry gossip alone, and their probes would be most of its
traffic. A path starts with the base size, which passes everywhere, and so it ends; control messages
never leave in larger segments.

Error contract: nothing here raises for what a peer does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, Final

from overlay.agenda import Agenda
from overlay.config import Settings
from overlay.effects import Effect, Report
from overlay.forwarding.outbound import Outbound
from overlay.forwarding.path import BASE_PATH_MTU, PeerPath
from overlay.routing.mtu import PathMtu
from overlay.session.transport import Keypair
from overlay.types import Endpoint, NodeId, short_id
from overlay.wire.burst import BLOCK_HEADER_SIZE, TAG_SIZE, segment_payload
from overlay.wire.control import encode
from overlay.wire.handed import BYTES, INT, Handed, Values, later, table
from overlay.wire.messages import PathProbe, PathProbeReply

BASE: Final = "base"
"""State of a path that carries no packets: nothing larger than the base size was looked for."""

_PADDING: Final = 1000
_PATH_PROBE_OVERHEAD: Final = len(encode(PathProbe(1500, bytes(_PADDING)))) - _PADDING


class PathMtus:
    """The path MTUs of one node.

    Args:
        paths: node -> path.
        outbound: seals probes.
        keypair: the one that seals for a node at a time, if there is one.
        settings: timing, and the largest underlay MTU worth probing.

    Attributes:
        changed: nodes whose segment size has changed; whoever follows them empties it.
    """

    HANDED: ClassVar = Handed(_mtus=table(BYTES, later(PathMtu.HANDED)), _carried=table(BYTES, INT))

    def __init__(
        self,
        *,
        paths: Mapping[NodeId, PeerPath],
        outbound: Outbound,
        keypair: Callable[[NodeId, float], Keypair | None],
        settings: Settings,
    ) -> None:
        self.changed: set[NodeId] = set()
        self._paths = paths
        self._outbound = outbound
        self._keypair = keypair
        self._settings = settings
        self._largest = settings.underlay_mtu
        self._mtus: dict[NodeId, PathMtu] = {}
        self._carried: dict[NodeId, int] = {}  # what each had when something was due
        self._probes: Agenda[NodeId] = Agenda()

    def inherit(self, values: Values, now: float) -> list[Effect]:
        """Go on with what another process has measured, on paths that are there."""
        self._carried = values["_carried"]
        for node, measured in values["_mtus"].items():
            mtu = PathMtu(timing=self._settings.timing, largest=self._largest, now=now)
            PathMtu.HANDED.put(mtu, measured)
            self._mtus[node] = mtu
        effects: list[Effect] = []
        for node in [node for node in self._mtus if node not in self._paths]:
            self.forget(node)
        for node, mtu in self._mtus.items():
            path, sizes = self._paths[node], mtu.on_largest(self._largest, now)
            path.use(path.endpoint, mtu.mtu)
            effects += self._follow(path, mtu, sizes, now)
        return effects

    def present(self, node: NodeId) -> int:
        """Largest IP packet that is known to pass, in bytes."""
        mtu = self._mtus.get(node)
        return mtu.mtu if mtu is not None else BASE_PATH_MTU

    def forget(self, node: NodeId) -> None:
        """The path goes elsewhere, or nowhere: its next packets start anew."""
        self._mtus.pop(node, None)
        self._carried.pop(node, None)
        self._probes.set(node, None)
        path = self._paths.get(node)
        if path is not None:
            path.carried = 0

    def on_packets(self, now: float) -> list[Effect]:
        """Packets were sent: start to probe on paths that had carried none."""
        effects: list[Effect] = []
        began = sorted(self._outbound.began)
        self._outbound.began.clear()
        for path in map(self._paths.get, began):
            if path is not None and path.node not in self._mtus:
                effects += self._begin(path, now)
        return effects

    def on_burst_elsewhere(self, node: NodeId, now: float) -> list[Effect]:
        """Another lane has sent packets to `node`."""
        path = self._paths.get(node)
        if path is None:
            return []
        path.carried += 1
        return [] if node in self._mtus else self._begin(path, now)

    def _begin(self, path: PeerPath, now: float) -> list[Effect]:
        mtu = PathMtu(timing=self._settings.timing, largest=self._largest, now=now)
        self._mtus[path.node] = mtu
        self._carried[path.node] = path.carried
        return self._follow(path, mtu, mtu.on_deadline(now), now)

    def _rest(self, path: PeerPath) -> list[Effect]:
        """No packets go there any more: forget its size, which nobody confirms from now on."""
        self.forget(path.node)
        return self._use(path, BASE_PATH_MTU)

    def _probe_path(self, path: PeerPath, sizes: list[int], now: float) -> list[Effect]:
        keypair = self._keypair(path.node, now)
        if keypair is None or path.endpoint is None:
            return []
        effects: list[Effect] = []
        for size in sizes:
            room = segment_payload(size, path.endpoint.ip_overhead) - TAG_SIZE - BLOCK_HEADER_SIZE
            message = encode(PathProbe(size, bytes(room - _PATH_PROBE_OVERHEAD)))
            sealed = self._outbound.seal_control(keypair, message, path.endpoint, size)
            path.tx_bytes += len(sealed.datagram)
            effects.append(sealed)
        return effects

    def on_reply(self, node: NodeId, reply: PathProbeReply, now: float) -> list[Effect]:
        """A probe of ours arrived: larger segments may follow."""
        path, mtu = self._paths.get(node), self._mtus.get(node)
        if path is None or mtu is None:
            return []
        sizes = mtu.on_reply(reply.size, now)
        return self._follow(path, mtu, sizes, now)

    def on_segment_loss(self, node: NodeId, now: float) -> list[Effect]:
        """Bursts of ours stayed incomplete there: ask whether the size in use still passes."""
        path, mtu = self._paths.get(node), self._mtus.get(node)
        if path is None or mtu is None:
            return []
        return self._follow(path, mtu, mtu.on_loss(now), now)

    def on_underlay_mtu(self, largest: int, now: float) -> list[Effect]:
        """The machine's links carry packets of up to `largest` bytes from now on."""
        effects: list[Effect] = []
        if largest != self._largest:
            self._largest = largest
            for node, mtu in list(self._mtus.items()):
                effects += self._follow(self._paths[node], mtu, mtu.on_largest(largest, now), now)
        return effects

    def state(self, node: NodeId) -> str:
        """`BASE`, "searching" for a larger size, or "settled"."""
        mtu = self._mtus.get(node)
        if mtu is None:
            return BASE
        return "searching" if mtu.searching else "settled"

    def on_too_big(self, endpoint: Endpoint, now: float) -> list[Effect]:
        """The kernel refused segments to `endpoint` as too big for the interface."""
        effects: list[Effect] = []
        for node, mtu in list(self._mtus.items()):
            path = self._paths[node]
            if path.endpoint == endpoint:
                sizes = mtu.on_too_big(path.path_mtu, now)
                effects += self._follow(path, mtu, sizes, now)
        return effects

    def _follow(self, path: PeerPath, mtu: PathMtu, sizes: list[int], now: float) -> list[Effect]:
        """The path MTU machine has done something: adopt its result, send the probes it wants."""
        self._probes.set(path.node, mtu.next_deadline())
        return [*self._use(path, mtu.mtu), *self._probe_path(path, sizes, now)]

    def _use(self, path: PeerPath, size: int) -> list[Effect]:
        if size == path.path_mtu:
            return []
        self.changed.add(path.node)
        path.use(path.endpoint, size)
        return [Report("path.mtu", {"peer": short_id(path.node), "mtu": size}, debug=True)]

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do next."""
        return self._probes.next_deadline()

    def on_deadline(self, now: float) -> list[Effect]:
        """Probes that are due, where packets went since such were due before."""
        effects: list[Effect] = []
        for node in self._probes.take_due(now):
            mtu, path = self._mtus[node], self._paths[node]
            if not mtu.probing:
                if path.carried == self._carried[node]:
                    effects += self._rest(path)
                    continue
                self._carried[node] = path.carried
            effects += self._follow(path, mtu, mtu.on_deadline(now), now)
        return effects
