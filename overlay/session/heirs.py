"""Sessions from one process to the next: no nonce twice, nothing taken twice, no new handshake.

    old process                                          new process
    keys, next counter, replay window  -- handed -->     the same: goes on at that counter
    spent: seals and opens nothing

Every keypair goes over, the half-open ones too: whoever started that handshake may seal under it
already. A handshake that this node has started does not: its ephemeral key is not worth carrying
for the second it lives, and who waits for the response starts anew. The far end keeps the half-open
keypair of the lost one until it expires, and its working keypair beside it.

Lanes that are other processes are not in here. Their keys end with them, and the new process gives
its own lanes none that was made before they were born (`overlay.lanes.director`). Lane 0 only opens
what other lanes of a peer seal for it; those windows go over as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final

from overlay.session.peer import PeerSession
from overlay.session.replay import ReplayWindow
from overlay.session.sessions import Sessions
from overlay.session.transport import KEYPAIR, Keypair
from overlay.types import NodeId
from overlay.wire.handed import (
    BOOL,
    BYTES,
    INT,
    Codec,
    Handed,
    Values,
    later,
    many,
    part,
    row,
    table,
)

_WINDOW: Final = Handed(bad_tags=INT, replay=part(ReplayWindow))
"""Of a keypair for another lane of a peer: lane 0 opens with it, and derives its keys anew."""


def _peer(static: bytes, connecting: bool, session: Values) -> tuple[bytes, bool, Values]:
    return static, connecting, session


def _sessions(*parts: object) -> dict[str, Any]:
    return dict(zip(("own", "peers", "joiners", "lanes"), parts, strict=True))


SESSIONS: Final = row(
    _sessions,
    later(Sessions.HANDED),
    table(BYTES, row(_peer, BYTES, BOOL, later(PeerSession.HANDED))),
    many(KEYPAIR),
    table(INT, later(_WINDOW)),
)
"""All of a node's sessions, as `gather` gathers them; what it reads is for `take_over`."""


def gather(sessions: Sessions) -> object:
    """All that the next process needs of `sessions`, to be packed."""
    peers = {node: (peer.static, peer.connecting, peer) for node, peer in sessions.peers.items()}
    joiners = [one for one in sessions.table.half_open() if one.node is None]
    lanes = {index: one for index, one in sessions.keypairs.items() if one.lane}
    return SESSIONS.write((sessions, peers, joiners, lanes))


ALL: Final = Codec(gather, SESSIONS.read)
"""How a `Sessions` is handed over as a whole."""


def spend(sessions: Sessions) -> None:
    """They were handed over: nothing is sealed or opened with them here any more."""
    for keypair in sessions.keypairs.values():
        keypair.spend()


def take_over(sessions: Sessions, handed: Mapping[str, Any]) -> list[NodeId]:
    """Go on with the sessions of another process.

    Args:
        sessions: of this process, new.
        handed: what `SESSIONS` has read.

    Returns:
        Nodes that the other process was shaking hands with, and waited for.
    """
    Sessions.HANDED.put(sessions, handed["own"])
    half_open: list[Keypair] = list(handed["joiners"])
    waiting: list[NodeId] = []
    for node, (static, connecting, values) in handed["peers"].items():
        peer = sessions.add_peer(node, static)
        PeerSession.HANDED.put(peer, values)
        for keypair in peer.keyring.all():
            if keypair is not None and keypair is not peer.keyring.next:
                sessions.table.add(keypair)
        half_open += [peer.keyring.next] if peer.keyring.next is not None else []
        waiting += [node] if connecting else []
    for keypair in sorted(half_open, key=attrgetter("created_at")):
        _add_half_open(sessions, keypair)
    for index, window in handed["lanes"].items():
        if index in sessions.keypairs:
            _WINDOW.put(sessions.keypairs[index], window)
    for node, peer in sessions.peers.items():
        sessions.due.set(node, peer.next_deadline())
    return waiting


def _add_half_open(sessions: Sessions, keypair: Keypair) -> None:
    """There may be room for fewer than before."""
    out = sessions.table.add_half_open(keypair)
    if out is not None:
        peer = sessions.peers.get(out.node) if out.node is not None else None
        if peer is not None:
            peer.keyring.drop_next(out)
        sessions.table.release(out.local_index)
