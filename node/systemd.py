"""Tells the service manager how the daemon is: sd_notify without a library.

A notification is one datagram of `KEY=value` lines to the socket that `$NOTIFY_SOCKET` names. The
manager documents this as a stable interface for reimplementation. Without the variable every
method does nothing, so the daemon need not know who started it.

    READY=1       traffic can flow                  RELOADING=1   settings are being read again
    WATCHDOG=1    still alive                       STOPPING=1    a clean stop has begun

A plain blocking socket on purpose: uvloop restricts AF_UNIX datagrams, the kernel answers at once,
and a manager that does not read would only cost one lost notification (`MSG_DONTWAIT`).

References:
    sd_notify(3), section "Notes" and the stand-alone implementations; sd_watchdog_enabled(3).
    systemd.service(5), Type=notify-reload: RELOADING must carry MONOTONIC_USEC.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Speaks to the service manager, or to nobody.

    Args:
        environment: where `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` are looked up.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        self._address = environment.get("NOTIFY_SOCKET", "")
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

    def _send(self, message: str, status: str = "") -> None:
        if not self._address:
            return
        if status:
            message += f"\nSTATUS={status}"
        # A leading @ means the abstract namespace, which the kernel writes as a zero byte.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as handle:
            handle.sendto(message.encode(), socket.MSG_DONTWAIT, address)


def _watchdog_interval(environment: Mapping[str, str]) -> float | None:
    microseconds = environment.get("WATCHDOG_USEC", "")
    pid = environment.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0:
        return None
    if pid and pid != str(os.getpid()):
        return None  # meant for another process of the service
    return int(microseconds) / 2e6  # half, as sd_watchdog_enabled(3) recommends
