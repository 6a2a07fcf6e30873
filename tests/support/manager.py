"""A service manager and its descriptor store, as far as a daemon can tell: over real sockets.

    process --datagrams, descriptors--> Manager --$LISTEN_FDS--> next process

References:
    sd_pid_notify_with_fds(3); systemd.service(5), FileDescriptorStoreMax=.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self


class Manager:
    """Listens at a path for the time of a `with` block, and acts as a manager does.

    Args:
        path: of the notification socket.
        deaf_to: keys of messages that it does not act on.

    Attributes:
        heard: every message, in order, as a dictionary.
        store: descriptors by name.
    """

    def __init__(self, path: Path, *, deaf_to: frozenset[str] = frozenset()) -> None:
        self.path = path
        self.heard: list[dict[str, str]] = []
        self.store: dict[str, list[int]] = {}
        self.changed = threading.Condition()
        self._deaf_to = deaf_to
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"END=1", str(self.path))
        self._thread.join()
        self._socket.close()
        self.release()

    @property
    def variables(self) -> dict[str, str]:
        """What a process of the service finds in its environment."""
        return {"NOTIFY_SOCKET": str(self.path), "FDSTORE": "8"}

    def said(self, key: str, within: float = 20.0) -> dict[str, str]:
        """The last message with that key; waits for the first one."""

        def found() -> dict[str, str] | None:
            return next((one for one in reversed(self.heard) if key in one), None)

        with self.changed:
            assert self.changed.wait_for(found, within), f"no {key} in {self.heard}"
            message = found()
            assert message is not None
            return message

    def passing(self) -> tuple[dict[str, str], list[int]]:
        """Variables for the next process, and the descriptors it gets from 3 on."""
        pairs = [(name, fd) for name, fds in sorted(self.store.items()) for fd in fds]
        variables = {
            "LISTEN_FDS": str(len(pairs)),
            "LISTEN_FDNAMES": ":".join(name for name, _ in pairs),
        }
        return self.variables | variables, [fd for _, fd in pairs]

    def release(self) -> None:
        """Let go of everything: the service was stopped, and is not started again."""
        with self.changed:
            for name in list(self.store):
                self._forget(name)

    def _listen(self) -> None:
        while True:
            data, descriptors, _, _ = socket.recv_fds(self._socket, 1 << 16, 8)
            message = dict(
                line.partition("=")[::2] for line in data.decode().splitlines() if "=" in line
            )
            if "END" in message:
                return
            with self.changed:
                self.heard.append(message)
                kept = not self._deaf_to & message.keys() and self._act(message, descriptors)
                if not kept:
                    for descriptor in descriptors:
                        os.close(descriptor)
                self.changed.notify_all()

    def _act(self, message: dict[str, str], descriptors: list[int]) -> bool:
        """Do what a message asks for; whether its descriptors are kept."""
        name = message.get("FDNAME", "stored")
        if "FDSTOREREMOVE" in message:
            self._forget(name)
        elif "FDSTORE" in message:
            # One that is there already is not kept twice.
            known = [os.fstat(one).st_ino for one in self.store.get(name, [])]
            if os.fstat(descriptors[0]).st_ino in known and name == "capsule":
                return False
            self.store.setdefault(name, []).extend(descriptors)
            return True
        return False

    def _forget(self, name: str) -> None:
        for descriptor in self.store.pop(name, []):
            os.close(descriptor)


LAUNCH = (
    "import os, sys\n"
    "passed = [int(word) for word in sys.argv[1].split(',') if word]\n"
    "copies = [os.dup2(fd, 100 + at) for at, fd in enumerate(passed)]\n"
    "for at, copy in enumerate(copies):\n"
    "    os.dup2(copy, 3 + at)\n"
    "    os.close(copy)\n"
    "os.environ['LISTEN_PID'] = str(os.getpid())\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)
"""For `python -c`: what a manager does between fork and exec, where `$LISTEN_PID` is first known.
Arguments: the descriptors to pass on, with commas between them, then the command."""
