"""Tells the service manager how the daemon is: sd_notify without a library.

A notification is one datagram of `KEY=value` lines to the socket that `$NOTIFY_SOCKET` names. The
manager documents this as a stable interface for reimplementation. Without the variable every
method does nothing, so the daemon need not know who started it.

    READY=1       traffic can flow                  RELOADING=1   settings are being read again
    WATCHDOG=1    still alive                       STOPPING=1    a clean stop has begun
    MAINPID=N     another process is the daemon     BARRIER=1     answered when all before was read
    FDSTORE=1     keep a descriptor                 FDSTOREREMOVE=1   forget it again

What the manager keeps (its descriptor store) it passes to the next process of the service, behind
standard error, and says so in `$LISTEN_FDS`, `$LISTEN_PID` and `$LISTEN_FDNAMES`.

A plain blocking socket on purpose: uvloop restricts AF_UNIX datagrams, the kernel answers at once,
and a manager that does not read would only cost one lost notification (`MSG_DONTWAIT`).

References:
    sd_notify(3), section "Notes" and the stand-alone implementations; sd_watchdog_enabled(3).
    systemd.service(5), Type=notify-reload: RELOADING must carry MONOTONIC_USEC;
    FileDescriptorStoreMax=. sd_pid_notify_with_fds(3), sd_listen_fds(3).
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from array import array
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import Final

FIRST_DESCRIPTOR: Final = 3
MOST_DESCRIPTORS: Final = 64


class Notifier:
    """Speaks to the service manager, or to nobody.

    Args:
        environment: where `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID` and `FDSTORE` are
            looked up.

    Attributes:
        address: where the manager listens; empty for nobody.
        stores: whether the manager says that it keeps descriptors until the next start.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self.address = environment.get("NOTIFY_SOCKET", "")
        room = environment.get("FDSTORE", "")
        self.stores = bool(self.address) and room.isdigit() and int(room) > 0
        self.watchdog_interval = _watchdog_interval(environment)

    watchdog_interval: float | None
    """Seconds between calls of `watchdog` that satisfy the manager; None when it does not ask."""

    def ready(self, status: str = "") -> None:
        """The start, or a reload, is complete."""
        self._send("READY=1", status)

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """A clean stop begins."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """Still alive."""
        self._send("WATCHDOG=1")

    async def feed_watchdog(self) -> None:
        """Say so as often as the manager wants to hear it, for ever; return if it does not."""
        while self.watchdog_interval is not None:
            self.watchdog()
            await asyncio.sleep(self.watchdog_interval)

    def main_pid(self, pid: int) -> None:
        """Another process is the daemon of the service from now on."""
        self._send(f"MAINPID={pid}")

    def store(self, name: str, descriptor: int) -> bool:
        """Have a descriptor kept for the next process, under `name`; whether it could be sent.

        The manager looks after it no further (`FDPOLL=0`): it would forget one whose interface is
        gone for a moment.
        """
        return self._send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", descriptors=(descriptor,))

    def forget(self, name: str) -> bool:
        """Have all descriptors of that name closed; whether it could be sent."""
        return self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def barrier(self, within: float) -> bool:
        """Wait until the manager has acted on all that was said; False if it does not in time."""
        if not self.address:
            return False
        near, far = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                sent = self._send("BARRIER=1", descriptors=(far,))
            finally:
                os.close(far)
            # The manager closes its copy when it has come that far.
            poller = select.poll()
            poller.register(near, 0)
            return sent and bool(poller.poll(within * 1000))
        finally:
            os.close(near)

    def _send(self, message: str, status: str = "", descriptors: Sequence[int] = ()) -> bool:
        if not self.address:
            return False
        if status:
            message += f"\nSTATUS={status}"
        # A leading @ means the abstract namespace, which the kernel writes as a zero byte.
        address = "\0" + self.address[1:] if self.address[0] == "@" else self.address
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as handle:
                ancillary = rights if descriptors else []
                handle.sendmsg([message.encode()], ancillary, socket.MSG_DONTWAIT, address)
        except OSError:
            return False
        return True


def take_descriptors(environment: MutableMapping[str, str] | None = None) -> dict[str, list[int]]:
    """The descriptors that the service manager passed to this process, by name.

    To be called once: the variables are removed, so that no child takes them for its own.

    Args:
        environment: where `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` are looked up.
    """
    environment = os.environ if environment is None else environment
    pid, count, names = (
        environment.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if pid != str(os.getpid()) or not count.isdigit():
        return {}  # meant for another process
    found: dict[str, list[int]] = {}
    named = names.split(":")
    for number in range(min(int(count), MOST_DESCRIPTORS)):
        descriptor = FIRST_DESCRIPTOR + number
        with suppress(OSError):  # one that is not open is none
            os.set_inheritable(descriptor, False)
            name = named[number] if number < len(named) else ""
            found.setdefault(name, []).append(descriptor)
    return found


def _watchdog_interval(environment: Mapping[str, str]) -> float | None:
    microseconds = environment.get("WATCHDOG_USEC", "")
    pid = environment.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0:
        return None
    if pid and pid != str(os.getpid()):
        return None  # meant for another process of the service
    return int(microseconds) / 2e6  # half, as sd_watchdog_enabled(3) recommends
