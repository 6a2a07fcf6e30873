"""The new daemon's part: asks the running one, prepares, takes everything, waits for its end.

    Taker.ask -- hello, welcome
        ... all that can be done beforehand ...
    take -- give, given: an `Estate`; packets wait from here ...
        ... an engine is built of it ...
    confirm -- taken, yours, the old process ends       ... to here: now it is ours

Until `confirm` returns nothing of the estate may be used that anybody could notice: no packet read,
none sent, nothing stored. If it raises, the old daemon has gone on with all of it.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from node.control.address import short_path
from node.errors import NodeError
from node.handover.capsule import CAPSULE, Capsule
from node.handover.speech import Ended, Hello, Line, as_message, close_all, hello_of, wait_for_end

WELCOME_PATIENCE: Final = 5.0
"""Seconds for the running daemon to answer at all."""

FINISH_PATIENCE: Final = 30.0
"""Seconds for it to finish what is in flight: pod changes, writes to a slow disk."""

DECISION_PATIENCE: Final = 15.0
"""Seconds until it has decided. It does so at once, or after its own patience."""

DYING: Final = 1.0
"""Seconds between the end of its connections and that of a process."""

END_PATIENCE: Final = 10.0
"""Seconds for its process to end after that. The kernel frees its memory meanwhile."""


@dataclass(frozen=True, slots=True)
class Estate:
    """What was passed on.

    Attributes:
        descriptors: by name, see `node.handover.capsule`; whoever uses one takes it out.
        capsule: what the old engine knew; None: the new one begins with what is on the disk.
    """

    descriptors: dict[str, int]
    capsule: Capsule | None

    def close(self) -> None:
        """Close everything that was passed on."""
        close_all(self.descriptors.values())


class Taker:
    """A connection to the daemon that runs. Made by `Taker.ask`.

    Attributes:
        pid: of that daemon.
        running: what it says of itself.
    """

    def __init__(self, line: Line, pidfd: int, running: Hello) -> None:
        self.running = running
        self._line = line
        self._pidfd = pidfd
        self.pid = line.pid

    @classmethod
    def ask(cls, path: Path, who: Hello) -> Self:
        """Ask the daemon that listens at `path` to be followed by this one.

        Raises:
            NodeError: it refuses, is not of this user, or does not answer.
            FileNotFoundError, ConnectionRefusedError: nobody listens there. Nothing else.
        """
        line = Line(_connected(path))
        try:
            if line.uid != os.geteuid():
                why = "the daemon that runs belongs to another user"
                raise NodeError(why, "run this one as that user", "other-user")
            try:
                # It cannot have ended since: the connection is open.
                pidfd = os.pidfd_open(line.pid)
            except OSError as error:
                raise NodeError.of("looking at the daemon that runs", error) from error
            try:
                line.send("hello", who=as_message(who))
                message, _ = line.expect("welcome", WELCOME_PATIENCE)
                running = hello_of(message)
            except NodeError:
                os.close(pidfd)
                raise
        except NodeError:
            line.close()
            raise
        return cls(line, pidfd, running)

    def take(self) -> Estate:
        """Have everything given; blocks until the old daemon has finished what is in flight.

        Raises:
            NodeError: it does not give it, and goes on. Nothing else.
        """
        self._line.send("give")
        _, descriptors = self._line.expect("given", FINISH_PATIENCE)
        try:
            capsule = Capsule.unseal(descriptors[CAPSULE])
        except (NodeError, KeyError) as error:
            close_all(descriptors.values())
            if isinstance(error, NodeError):
                raise
            raise NodeError("the running daemon did not hand over what it knows") from error
        os.close(descriptors.pop(CAPSULE))
        return Estate(descriptors, capsule)

    def confirm(self) -> None:
        """Say that the estate can be used, and wait until it may be: until the old one is gone.

        Raises:
            NodeError: the old one has gone on. Nothing else.
        """
        try:
            self._line.send("taken")
            self._line.expect("yours", DECISION_PATIENCE)
        except Ended:
            # It closed the connection: either to go on, or because it ended before it could say.
            # It may have ended after it went on, and then its last word was a refusal.
            ended = wait_for_end(self._pidfd, DYING)
            self._line.hear_out()
            if not ended:
                raise
            return
        if not wait_for_end(self._pidfd, END_PATIENCE):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)  # it does nothing any more
            if not wait_for_end(self._pidfd, END_PATIENCE):
                raise Ended(f"process {self.pid} has handed over and does not end", "end it")

    def close(self) -> None:
        """Let go of the old daemon. Safe to call twice."""
        self._line.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _connected(path: Path) -> socket.socket:
    """A connection to the daemon that listens there.

    Raises:
        FileNotFoundError, ConnectionRefusedError: nobody does.
        NodeError: it cannot be reached. Nothing else.
    """
    end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with short_path(str(path)) as short:
            end.connect(short)
    except OSError as error:
        end.close()
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
            raise
        raise NodeError.of(f"connecting to {path}", error) from error
    return end
