"""One call from one namespace to another: whom the callee sees, and that answers come back."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import NamedTuple

from overlay.types import Endpoint
from tests.support.labs import Place
from tests.support.processes import PATIENCE
from tests.support.traffic import opened

REFUSAL_PATIENCE = 1.0
"""For calls that are meant to fail without an answer."""

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
ANYWHERE = {4: "0.0.0.0", 6: "::"}


class Call(NamedTuple):
    """Who calls what.

    Attributes:
        caller: where the call comes from.
        to: the address it goes to.
        port: the port it goes to.
        kind: TCP or UDP.
        source: the caller's port; 0 for any.
        host: the caller's address; empty for the one that its kernel chooses.
    """

    caller: Place
    to: str
    port: int
    kind: socket.SocketKind = TCP
    source: int = 0
    host: str = ""

    @property
    def family(self) -> int:
        return 6 if ":" in self.to else 4


def seen(call: Call, callee: Place, port: int = 0, *, patience: float = PATIENCE) -> Endpoint:
    """Make the call to a server in `callee`; whom that sees. Words go both ways.

    Args:
        call: who calls what.
        callee: where the server is.
        port: that the server has; 0 for the one that is called.
        patience: seconds for each step.

    Raises:
        OSError: the call was refused, or nothing came in time.
    """
    with ExitStack() as stack:
        server = stack.enter_context(opened(callee, call.kind, call.family))
        client = stack.enter_context(opened(call.caller, call.kind, call.family))
        for each in (server, client):
            each.settimeout(patience)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((ANYWHERE[call.family], port or call.port))
        if call.source or call.host:
            client.bind((call.host or ANYWHERE[call.family], call.source))
        if call.kind == UDP:
            client.connect((call.to, call.port))
            client.send(b"ping")
            word, peer = server.recvfrom(16)
            server.sendto(b"pong", peer)
        else:
            server.listen()
            client.connect((call.to, call.port))
            line, peer = server.accept()
            stack.enter_context(line)
            line.settimeout(patience)
            client.sendall(b"ping")
            word = line.recv(16)
            line.sendall(b"pong")
        assert (word, client.recv(16)) == (b"ping", b"pong")
        return Endpoint(str(peer[0]), int(peer[1]))


def fails(call: Call, callee: Place, port: int = 0) -> bool:
    """Whether the call does not come through."""
    try:
        seen(call, callee, port, patience=REFUSAL_PATIENCE)
    except OSError:
        return True
    return False
