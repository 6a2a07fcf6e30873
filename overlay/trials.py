"""What offloads are used with each peer: trials on the path, and what each end can take.

    session up --> Trial --> bursts of forty segments, segmented and singly --> far end
                     ^                                                            |
                     +----------------- TrialReply(number, takes, coalesced) <----+

Both ends do this, each for the direction it sends in. `overlay.routing.trial` decides; here its
steps become messages and its verdict becomes a `SetOffload` for the socket. Data may flow at any
time: until a trial has failed it is sent segmented, and what is lost meanwhile its senders repeat.

`takes` is what the sender's TUN takes unsegmented (checksum, tso, uso). It is shown, not obeyed: a
node cuts in software what its kernel cannot take, and a super-packet is cheaper to carry anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from overlay.agenda import earliest
from overlay.config import Settings
from overlay.effects import Effect, Report, SendControl, SendDatagram, SetOffload
from overlay.forwarding.outbound import Outbound
from overlay.forwarding.path import BASE_PATH_MTU, PeerPath
from overlay.routing.trial import Step, Trial, Verdict, Way
from overlay.session.transport import Keypair
from overlay.types import Endpoint, NodeId, short_id
from overlay.wire.control import encode
from overlay.wire.handed import (
    BOOL,
    BYTES,
    ENDPOINT,
    INT,
    SECONDS,
    Handed,
    Values,
    later,
    maybe,
    part,
    table,
)
from overlay.wire.messages import ReadSingly, TrialReply
from overlay.wire.messages import Trial as TrialMessage

# -- specification ---------------------------------------------------------------------------------

TAKES: Final = {"checksum": 1, "tso": 2, "uso": 4}
"""Bits of `takes`. Unknown ones are ignored."""

BLOCK_SIZE: Final = 48_000
"""Bytes of a large trial: about forty segments of the base size. They are zeros; sealed, they are
as random as any others, and the tag proves every one of them."""

# -- implementation --------------------------------------------------------------------------------

ALONE: Final = 3
"""Times that one peer is read singly at its word alone."""

SINGLY_FOR: Final = 60.0
"""Seconds for which it is, each time: then all are read as before."""

GSO: Final = "udp_gso"
GRO: Final = "udp_gro"


class _Peer:
    """The present trial with one peer, and what it has told."""

    __slots__ = ("coalesced", "endpoint", "over", "path", "takes", "trial", "was_segmented")

    HANDED: ClassVar = Handed(
        endpoint=ENDPOINT,
        trial=part(Trial),
        takes=INT,
        coalesced=maybe(BOOL),
        was_segmented=BOOL,
        over=BOOL,
    )

    def __init__(self, path: PeerPath, endpoint: Endpoint, trial: Trial) -> None:
        self.path = path
        self.endpoint = endpoint
        self.trial = trial
        self.takes = 0
        self.coalesced: bool | None = None
        self.was_segmented = trial.segmented
        self.over = False  # the session has ended: the next one is tried anew


class Trials:
    """The trials with all peers of one node.

    Args:
        outbound: seals.
        keypairs: local index -> keypair, for how many bursts did not verify.
        settings: timing, and the offloads that this node has.
    """

    HANDED: ClassVar = Handed(
        _peers=table(BYTES, later(_Peer.HANDED)),
        _pleas=table(BYTES, INT),
        _coalesces=BOOL,
        _again_at=maybe(SECONDS),
    )

    def __init__(
        self, *, outbound: Outbound, keypairs: Mapping[int, Keypair], settings: Settings
    ) -> None:
        self._outbound = outbound
        self._keypairs = keypairs
        self._settings = settings
        self._takes = sum(TAKES.get(name, 0) for name in settings.offloads)
        self._coalesces = GRO in settings.offloads
        self._pleas: dict[NodeId, int] = {}  # who asked to be read singly, and how often
        self._again_at: float | None = None  # when to coalesce again
        self._peers: dict[NodeId, _Peer] = {}
        self._due: float | None = None  # a lower bound: nothing is due before

    def inherit(self, values: Values, paths: Mapping[NodeId, PeerPath]) -> list[Effect]:
        """Go on with what another process has tried; what the new sockets must know of it.

        Where this one has other offloads, all is tried anew.
        """
        coalesces, segments = (one in self._settings.offloads for one in (GRO, GSO))
        self._pleas, self._again_at = values["_pleas"], values["_again_at"] if coalesces else None
        self._coalesces &= values["_coalesces"]
        for node, tried in values["_peers"].items():
            trial = Trial(timing=self._settings.timing, segmented=segments, now=0.0)
            peer = _Peer(paths.get(node) or PeerPath(node), tried["endpoint"], trial)
            _Peer.HANDED.put(peer, tried)
            if node in paths and trial.segments is segments and self._settings.offloads:
                self._peers[node] = peer
        dues = [
            due for one in self._peers.values() if (due := one.trial.next_deadline()) is not None
        ]
        self._due = min(dues, default=None)
        failed = (peer.endpoint for node, peer in self._peers.items() if self.is_singly(node))
        effects: list[Effect] = [SetOffload(GSO, on=False, endpoint=one) for one in failed]
        return (
            effects if self._coalesces or not coalesces else [SetOffload(GRO, on=False), *effects]
        )

    def on_session(self, path: PeerPath, now: float) -> list[Effect]:
        """A session is up, or has moved: try its path, unless that was done."""
        endpoint, known = path.endpoint, self._peers.get(path.node)
        if endpoint is None or not self._settings.offloads:
            return []
        if known is not None and known.endpoint == endpoint and not known.over:
            return []
        segmented = GSO in self._settings.offloads
        trial = Trial(timing=self._settings.timing, segmented=segmented, now=now)
        peer = self._peers[path.node] = _Peer(path, endpoint, trial)
        restored: list[Effect] = []
        if known is not None:
            peer.takes = known.takes
            if segmented and not known.was_segmented:
                restored = [SetOffload(GSO, on=True, endpoint=known.endpoint)]
        return [*restored, *self._take(peer, trial.on_deadline(now), now)]

    def on_session_down(self, node: NodeId) -> None:
        """The session has ended: the next one is another."""
        if node in self._peers:
            self._peers[node].over = True

    def forget(self, node: NodeId) -> list[Effect]:
        """The peer is no member any more: whoever has its address next is not spared for it."""
        peer = self._peers.pop(node, None)
        if peer is None or peer.was_segmented or GSO not in self._settings.offloads:
            return []
        return [SetOffload(GSO, on=True, endpoint=peer.endpoint)]

    # -- messages ------------------------------------------------------------------------------

    def on_trial(self, node: NodeId, message: TrialMessage, *, whole: bool) -> list[Effect]:
        """A trial of the peer's arrived; `whole`: all its segments in one read."""
        self._learn(node, message.takes)
        return [SendControl(node, encode(TrialReply(message.number, self._takes, whole)))]

    def on_trial_reply(self, node: NodeId, reply: TrialReply, now: float) -> list[Effect]:
        """A trial of ours arrived there."""
        self._learn(node, reply.takes)
        peer = self._peers.get(node)
        if peer is None:
            return []
        peer.trial.on_reply(reply.number)
        if peer.trial.verdict is Verdict.PROVEN:
            peer.coalesced = reply.coalesced
        return self._take(peer, [], now)

    def on_read_singly(self, node: NodeId, now: float) -> list[Effect]:
        """The peer's large bursts do not arrive: believed if some came and did not verify.

        It is for all peers, so it is for good only if more than half of them say so. One alone, who
        may have made bad bursts on purpose, is heard `ALONE` times, for `SINGLY_FOR` each.
        """
        bad = sum(key.bad_tags for key in self._keypairs.values() if key.node == node)
        if GRO not in self._settings.offloads or not bad:
            return []
        live = {one for one, peer in self._peers.items() if not peer.over} | {node}
        if self._coalesces or node not in self._pleas:
            self._pleas[node] = self._pleas.get(node, 0) + 1
        self._pleas = {one: times for one, times in self._pleas.items() if one in live}
        for_good = 2 * len(self._pleas) > len(live)
        if for_good:
            self._again_at = None
        if not self._coalesces or (self._pleas[node] > ALONE and not for_good):
            return []
        self._coalesces = False
        self._again_at = None if for_good else now + SINGLY_FOR
        why = f"{bad} bursts of the peer's did not verify"
        fields = {"peer": short_id(node), "offloads": GRO, "why": why}
        return [SetOffload(GRO, on=False), Report("offload.failed", fields)]

    def _learn(self, node: NodeId, takes: int) -> None:
        if node in self._peers:
            self._peers[node].takes = takes

    # -- steps ---------------------------------------------------------------------------------

    def _take(self, peer: _Peer, steps: list[Step], now: float) -> list[Effect]:
        effects = self._adopt(peer)
        for step in steps:
            effects += self._send(peer, step, now)
        due = peer.trial.next_deadline()
        if due is not None:
            self._due = due if self._due is None else min(self._due, due)
        return effects

    def _adopt(self, peer: _Peer) -> list[Effect]:
        """Follow the verdict, if it has changed."""
        segmented = peer.trial.segmented
        if segmented == peer.was_segmented:
            return []
        peer.was_segmented = segmented
        effects: list[Effect] = [SetOffload(GSO, on=segmented, endpoint=peer.endpoint)]
        if not segmented:
            why = "segmented bursts are not answered, single datagrams are"
            fields = {"peer": short_id(peer.path.node), "offloads": GSO, "why": why}
            effects.append(Report("offload.failed", fields))
        return effects

    def _send(self, peer: _Peer, step: Step, now: float) -> list[Effect]:
        node, keypair = peer.path.node, peer.path.keypair
        if step.way is Way.PLEA:
            return [SendControl(node, encode(ReadSingly()))]
        if step.way is Way.SMALL:
            return [SendControl(node, encode(TrialMessage(step.number, self._takes, b"")))]
        if keypair is None or not keypair.usable(now):
            return []
        message = encode(TrialMessage(step.number, self._takes, bytes(BLOCK_SIZE)))
        sealed = self._outbound.seal_control(keypair, message, peer.endpoint, BASE_PATH_MTU)
        peer.path.tx_bytes += len(sealed.datagram)
        if step.way is Way.SINGLY:
            return _one_by_one(sealed)
        if peer.was_segmented:
            return [sealed]
        on, off = (SetOffload(GSO, on=on, endpoint=peer.endpoint) for on in (True, False))
        return [on, sealed, off]  # data stays as it is while it is tried again

    # -- time ----------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `on_deadline` has something to do next."""
        return earliest(self._due, self._again_at)

    def on_deadline(self, now: float) -> list[Effect]:
        """Rounds that are due."""
        effects: list[Effect] = []
        if self._again_at is not None and now >= self._again_at:
            self._again_at, self._coalesces = None, True
            effects.append(SetOffload(GRO, on=True))
        if self._due is None or now < self._due:
            return effects
        self._due = None
        for peer in self._peers.values():
            # Without a session nothing would be answered; the next one begins anew.
            if not peer.over:
                effects += self._take(peer, peer.trial.on_deadline(now), now)
        return effects

    # -- observation ---------------------------------------------------------------------------

    def is_singly(self, node: NodeId) -> bool:
        """Whether the kernel must not cut bursts to `node`: tried, and seen to fail."""
        peer = self._peers.get(node)
        return peer is not None and not peer.was_segmented and GSO in self._settings.offloads

    def offloads(self, node: NodeId) -> tuple[str, ...]:
        """What is used with a peer: the socket's own, and what both ends' TUNs take."""
        peer = self._peers.get(node)
        takes = peer.takes if peer else 0
        own = [name for name in (GSO, GRO) if name in self._settings.offloads]
        if peer is not None and not peer.was_segmented and GSO in own:
            own.remove(GSO)
        if not self._coalesces and GRO in own:
            own.remove(GRO)
        both = [name for name, bit in TAKES.items() if self._takes & takes & bit]
        return (*own, *both)

    def state(self, node: NodeId) -> str:
        """What came of the trial: a `Verdict`, with `coalesced` when the far end read it whole."""
        peer = self._peers.get(node)
        if peer is None:
            return ""
        return "coalesced" if peer.coalesced else str(peer.trial.verdict)


def _one_by_one(sealed: SendDatagram) -> list[Effect]:
    step = sealed.segment_size or len(sealed.datagram)
    return [
        SendDatagram(sealed.endpoint, sealed.datagram[at : at + step], at_once=sealed.at_once)
        for at in range(0, len(sealed.datagram), step)
    ]
