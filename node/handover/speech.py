"""What two daemons of one node say to each other while the one takes the place of the other.

    new                                   old
    hello(who, format, settings) ------->              may it be so?
          <------------------------------ welcome(...) or refused(code, why, fix)
    ... prepares all that it can ...
    give ------------------------------->              finishes what is in flight, stops
          <------------------------------ given + descriptors, or refused(...)
    ... builds an engine of it ...
    taken ------------------------------>              decides here, and nowhere else
          <------------------------------ yours        and ends
    ... waits for that end, then goes on ...

The old one decides, by reading `taken`. If it reads anything else, or nothing in time, it says
`refused`, closes the connection and only then goes on. The new one touches what it was given only
after the end of the old process, which the kernel tells for sure, and never after a `refused`: an
old one that went on has used the keys further, even if it ended a moment later. So there is never a
moment at which two have the keys and use them, nor one from which on nobody goes on: whoever sees
the other end first has it.

Messages are JSON objects in a SOCK_SEQPACKET Unix socket, which keeps them apart; descriptors
travel beside them. The socket's file is its owner's, and both ask the kernel who the other is.

References:
    unix(7), SCM_RIGHTS and SO_PEERCRED; pidfd_open(2).
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from array import array
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from struct import Struct
from typing import Any, Final, Self

from node.errors import NodeError
from node.handover.capsule import FORMAT

NAME: Final = "handover.sock"
"""The socket's name in the state folder."""

LONGEST: Final = 16 << 10
MOST_DESCRIPTORS: Final = 8
_CREDENTIALS: Final = Struct("iii")  # struct ucred: pid, uid, gid


class Ended(NodeError):
    """The other end closed the connection, or said nothing in time."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Who wants to take over, and as what: all of it must be as it is with the old one.

    Attributes:
        node: the node's id, in hex.
        namespace: device and inode of the network namespace.
        settings: those that descriptors cannot follow, by name.
        notify: where its service manager listens; empty without one.
        port: where it receives packets; 0 if it does not yet.
        format: `FORMAT`.
    """

    node: str
    namespace: tuple[int, int]
    settings: Mapping[str, str]
    notify: str = ""
    port: int = 0
    format: int = FORMAT

    def why_not(self, other: Hello) -> NodeError | None:
        """Why `other` may not take the place of this one; None if it may."""
        again = "stop the daemon and start it again"
        if other.format != self.format:
            why = "the running daemon is of a version that cannot hand over to this one"
            return NodeError(why, again, "other-version")
        if other.node != self.node:
            return NodeError("the running daemon is another node", again, "other-node")
        if other.namespace != self.namespace:
            why = "the running daemon is in another network namespace"
            return NodeError(why, "run it there", "other-namespace")
        if self.notify not in {"", other.notify}:
            why = "a service manager looks after the running daemon"
            return NodeError(why, "have that restart it: systemctl restart muslin", "supervised")
        changed = [key for key in self.settings if self.settings[key] != other.settings.get(key)]
        if changed:
            why = f"{', '.join(changed)} cannot be changed while packets flow"
            return NodeError(why, again, "other-settings")
        return None


class Line:
    """One end of a connection between two daemons. To be used with `with`, or closed.

    Args:
        end: the connected socket; closed with this.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        end.setblocking(True)
        raw = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid, self.uid, _ = _CREDENTIALS.unpack(raw)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor to watch."""
        return self._socket.fileno()

    def send(self, what: str, descriptors: Mapping[str, int] | None = None, **more: object) -> None:
        """Say one thing; `descriptors` go along under their names.

        Raises:
            Ended: nobody listens any more. Nothing else.
        """
        passed = descriptors or {}
        message = json.dumps({"say": what, "descriptors": list(passed), **more}).encode()
        rights = array("i", passed.values())
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if passed else []
        try:
            self._socket.sendmsg([message], ancillary, socket.MSG_NOSIGNAL)
        except OSError as error:
            raise Ended(f"the other daemon is gone ({error.strerror})") from error

    def receive(self, within: float) -> tuple[dict[str, Any], dict[str, int]]:
        """What is said next, and the descriptors that came along; they are the caller's to close.

        Args:
            within: seconds to wait.

        Raises:
            Ended: nothing came.
            NodeError: it is no message of ours, or a refusal. Nothing else.
        """
        poller = select.poll()  # select() knows no descriptor above 1023
        poller.register(self._socket, select.POLLIN)
        if not poller.poll(max(0.0, within) * 1000):
            raise Ended("the other daemon does not answer", "look at its log")
        try:
            data, descriptors, flags, _ = socket.recv_fds(self._socket, LONGEST, MOST_DESCRIPTORS)
        except OSError as error:
            raise Ended(f"the other daemon is gone ({error.strerror})") from error
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)  # the lock above all must not live on in a child
        if not data:
            raise Ended("the other daemon has closed the connection", "look at its log")
        try:
            message = _parsed(data, descriptors, flags)
        except ValueError as error:
            close_all(descriptors)
            raise NodeError(f"what the other daemon says cannot be read ({error})") from error
        if message["say"] == "refused":
            close_all(descriptors)
            raise NodeError(*(str(message.get(key, "")) for key in ("why", "fix", "code")))
        return message, dict(zip(message["descriptors"], descriptors, strict=True))

    def expect(self, what: str, within: float) -> tuple[dict[str, Any], dict[str, int]]:
        """The next message, which has to be `what`. Raises as `receive`."""
        message, descriptors = self.receive(within)
        if message["say"] != what:
            close_all(descriptors.values())
            raise NodeError(f"the other daemon says {message['say']!r} instead of {what!r}")
        return message, descriptors

    def hear_out(self) -> None:
        """Read what is left of a connection that the other end has closed.

        Raises:
            NodeError: a refusal was, or what is no message of ours. Nothing else.
        """
        for _ in range(2):  # one that was reset says so once, before what was said in it
            with suppress(Ended):
                close_all(self.receive(0.0)[1].values())

    def refuse(self, error: NodeError) -> None:
        """Say why not."""
        with suppress(Ended):
            self.send("refused", code=error.code, why=error.why, fix=error.fix)

    def close(self) -> None:
        """Close this end. Safe to call twice."""
        self._socket.close()


def _parsed(data: bytes, descriptors: list[int], flags: int) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(data)
    named = message.get("descriptors") if isinstance(message, dict) else None
    if not isinstance(named, list) or not isinstance(message.get("say"), str):
        raise ValueError("no message")
    if len(named) != len(descriptors) or flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
        raise ValueError("it is not whole")
    return message


def close_all(descriptors: Iterable[int]) -> None:
    """Close what was received and is of no use."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def hello_of(message: Mapping[str, Any]) -> Hello:
    """The `Hello` in a message.

    Raises:
        NodeError: there is none. Nothing else.
    """
    try:
        said = dict(message["who"])
        number = int(said["format"])
        if number != FORMAT:  # then nobody knows what else it means
            return Hello("", (0, 0), {}, format=number)
        device, inode = said["namespace"]
        return Hello(
            node=str(said["node"]),
            namespace=(int(device), int(inode)),
            settings={str(key): str(value) for key, value in dict(said["settings"]).items()},
            notify=str(said["notify"]),
            port=int(said["port"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise NodeError("the other daemon does not say who it is") from error


def as_message(hello: Hello) -> dict[str, object]:
    """A `Hello` as a JSON value."""
    return asdict(hello)


def this_namespace() -> tuple[int, int]:
    """Device and inode of the network namespace of this process."""
    found = os.stat("/proc/self/ns/net")
    return found.st_dev, found.st_ino


def wait_for_end(pidfd: int, within: float) -> bool:
    """Whether a process has ended, at the latest after `within` seconds."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + within
    while (left := deadline - time.monotonic()) > 0:
        if poller.poll(left * 1000):
            return True
    return bool(poller.poll(0))
