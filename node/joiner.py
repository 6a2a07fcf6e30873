"""Runs the join machine of `overlay.joining` over a plain UDP socket, until it is through.

Joining happens once in a node's life and nothing else is going on, so this is a blocking loop:
send what the machine wants sent, wait for a datagram or for the machine's deadline, repeat. The
socket has a port of its own; the one of the daemon is not needed yet.
"""

from __future__ import annotations

import random
import select
import time
from collections.abc import Callable

from node.identity import NodeKeys, StoredNode
from node.io.ports import DatagramPort
from node.io.udp import UdpSocket
from overlay.config import Settings
from overlay.effects import Effect, SendDatagram
from overlay.errors import RefusedError
from overlay.joining import Joiner, JoinOutcome
from overlay.state import NodeState
from overlay.types import Endpoint, Entropy
from overlay.wire.token import JoinToken


def read_token(text: str, *, wall: float) -> JoinToken:
    """The token that somebody typed, if it can still be of use.

    Args:
        text: the token.
        wall: Unix seconds.

    Raises:
        ConfigError: it is not a token, or damaged.
        RefusedError: it has expired by this machine's clock (`token-expired`). Nothing else.
    """
    token = JoinToken.parse(text)
    if wall >= token.expires:
        raise RefusedError(
            "token-expired",
            "this token has expired (by this machine's clock)",
            "make another token with muslin token",
        )
    return token


def join(
    token: JoinToken,
    name: str,
    *,
    entropy: Entropy,
    settings: Settings | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> StoredNode:
    """Ask the token's member for membership; returns what the node has to store.

    Args:
        token: from `read_token`.
        name: of the new node.
        entropy: for the node's keys and the handshake.
        settings: how patient to be.
        clock: monotonic seconds.

    Raises:
        RefusedError: no member answered (`no-answer`, names the endpoints), or the authority
            declined (`token-used`, `token-expired`, `name-taken`, ...).
        OverlayError: no UDP socket can be made. Nothing else.
    """
    keys = NodeKeys.make(entropy)
    joiner = Joiner(
        token=token,
        signing=keys.signing,
        static=keys.static,
        name=name,
        settings=settings or Settings(),
        entropy=entropy,
        rng=random.Random(int.from_bytes(entropy(8), "big")),
        epoch=time.time() - clock(),
    )
    udp = UdpSocket(Endpoint("::", 0), gso=False, gro=False)
    try:
        outcome = _run(joiner, udp, clock)
    finally:
        udp.close()
    state = NodeState(items=outcome.items)
    return StoredNode(keys, outcome.cluster, outcome.psk, outcome.certificate, state)


def _run(joiner: Joiner, udp: DatagramPort, clock: Callable[[], float]) -> JoinOutcome:
    _send(udp, joiner.start(clock()))
    while not joiner.finished:
        deadline = joiner.next_deadline()
        patience = None if deadline is None else max(0.0, deadline - clock())
        select.select([udp.fileno()], [], [], patience)
        received = udp.receive()
        if received is not None:
            datagram = bytes(received.datagrams)
            _send(udp, joiner.on_datagram_untrusted(datagram, received.source, clock()))
        # Also after a datagram: strangers who send many must not keep time from passing.
        _send(udp, joiner.on_deadline(clock()))
    if joiner.failure is not None:
        raise joiner.failure
    assert joiner.outcome is not None, "a finished join has an outcome or a failure"
    return joiner.outcome


def _send(udp: DatagramPort, effects: list[Effect]) -> None:
    for effect in effects:
        assert isinstance(effect, SendDatagram), "a joiner only sends"
        # Refused by the kernel is like lost on the way: the machine repeats itself.
        udp.send(effect.endpoint, memoryview(effect.datagram), effect.segment_size)
