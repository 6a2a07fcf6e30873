"""The size of segments on the paths to all peers: probes are sent, answers make segments larger.

`overlay.routing.mtu` decides for one path; here its sizes become sealed probes, and its result
becomes the path's. A path has a machine from the moment a session is up at its endpoint.

Error contract: nothing here raises for what a peer does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

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
from overlay.wire.messages import PathProbe, PathProbeReply

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
        self._probes: Agenda[NodeId] = Agenda()

    def present(self, node: NodeId) -> int:
        """Largest IP packet that is known to pass, in bytes."""
        mtu = self._mtus.get(node)
        return mtu.mtu if mtu is not None else BASE_PATH_MTU

    def forget(self, node: NodeId) -> None:
        """The path goes elsewhere, or nowhere."""
        self._mtus.pop(node, None)
        self._probes.set(node, None)

    def on_session(self, path: PeerPath, now: float) -> list[Effect]:
        """A session is up: start to probe, unless that was done on this path."""
        return [] if path.node in self._mtus else self.on_moved(path, now)

    def on_moved(self, path: PeerPath, now: float) -> list[Effect]:
        """The path is another one: start to probe."""
        mtu = PathMtu(timing=self._settings.timing, largest=self._largest, now=now)
        self._mtus[path.node] = mtu
        sizes = mtu.on_deadline(now)
        return self._follow(path, mtu, sizes, now)

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

    def is_settled(self, node: NodeId) -> bool:
        """Whether no larger size is being looked for."""
        mtu = self._mtus.get(node)
        return mtu is not None and not mtu.searching

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
        return [*self._adopt(path, mtu), *self._probe_path(path, sizes, now)]

    def _adopt(self, path: PeerPath, mtu: PathMtu) -> list[Effect]:
        if mtu.mtu == path.path_mtu:
            return []
        self.changed.add(path.node)
        path.use(path.endpoint, mtu.mtu)
        return [Report("path.mtu", {"peer": short_id(path.node), "mtu": mtu.mtu}, debug=True)]

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do next."""
        return self._probes.next_deadline()

    def on_deadline(self, now: float) -> list[Effect]:
        """Probes that are due."""
        effects: list[Effect] = []
        for node in self._probes.take_due(now):
            mtu = self._mtus[node]
            effects += self._follow(self._paths[node], mtu, mtu.on_deadline(now), now)
        return effects
