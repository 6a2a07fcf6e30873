"""The two edges of a node, by which all packets come and go: its UDP socket and its TUN interface.

Both are made here, or taken over as an earlier daemon left them; and both can be left to the next
one: a descriptor more, with the next process or with the service manager, keeps everything that
waits in them.

    made ----------------+--> in use --> closed: the interface is gone
    passed on -----------+         '---> let go: they are somebody else's
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from node.config import NodeConfig
from node.errors import NodeError
from node.handover.capsule import TUN, UDP
from node.handover.store import CONFIRM_PATIENCE
from node.interface import keep_tun, open_tun
from node.io.tun import Tun, TunError
from node.io.udp import UdpError, UdpSocket
from node.kernel.errors import KernelError
from node.kernel.thread import KernelThread
from node.logs import EventLog
from node.selftest.check import Result, check_offloads
from node.selftest.memory import recall, remember
from node.state import StateFolder
from node.systemd import Notifier
from overlay.types import NodeId

_UNSURE: Final = -1
"""Of a descriptor that may be stored: nobody knows whose a daemon that gave it was."""


class Edges:
    """The socket and the interface of one node.

    Args:
        config: how they are to be.
        node: whose they are.
        thread: where netlink is spoken.
        notifier: keeps descriptors for the next process, where there is a service manager.

    Attributes:
        udp: after `open_udp`.
        tun: after `open_tun`.
        owned: whether the interface goes when this is closed. False while it is still that of a
            daemon which may go on with it.
    """

    udp: UdpSocket
    tun: Tun

    def __init__(
        self, config: NodeConfig, node: NodeId, thread: KernelThread, notifier: Notifier
    ) -> None:
        self._config = config
        self._node = node
        self._thread = thread
        self._notifier = notifier
        self._log = EventLog()
        self._stored: dict[str, int] = {}
        self._has_udp = self._has_tun = False
        self._result: Result | None = None
        self.owned = True

    @property
    def offloads(self) -> tuple[str, ...]:
        """What the kernel does for both."""
        return (*self.udp.offloads, *self.tun.offloads)

    @property
    def descriptors(self) -> dict[str, int]:
        """Both, by the names under which they are passed on."""
        return {TUN: self.tun.fileno(), UDP: self.udp.fileno()}

    def open_udp(self, passed: dict[str, int], *, must: bool) -> None:
        """Bind the socket, or go on with one that was passed on.

        Args:
            passed: descriptors by name; the one that is used is taken out.
            must: whether one that cannot be used is an error. Else the service manager has kept
                it for settings that have changed since.

        Raises:
            UdpError: the port is in use, or what was passed on is something else. Nothing else.
        """
        config = self._config

        def make(descriptor: int | None) -> UdpSocket:
            return UdpSocket(
                config.listen, gso=config.udp_gso, gro=config.udp_gro, descriptor=descriptor
            )

        descriptor = passed.pop(UDP, None)
        try:
            self.udp = make(descriptor)
        except UdpError as error:
            if descriptor is None or must:
                raise
            self._drop(UDP, descriptor, error)
            descriptor = None
            self.udp = make(None)
        self._note(UDP, descriptor, by_daemon=must)
        self._has_udp = True

    async def open_tun(self, result: Result, passed: dict[str, int], *, must: bool) -> None:
        """Make the interface, find it again, or go on with a queue of it that was passed on.

        Args:
            result: of the self-test; what failed is left off, here and at the socket.
            passed: descriptors by name; the one that is used is taken out.
            must: as for `open_udp`.

        Raises:
            TunError: the name is taken, or what was passed on is something else.
            KernelError: the kernel does not answer. Nothing else.
        """
        config = self._config
        works = [name for name in config.tun_offload if name in result.works]

        def make(descriptor: int | None = None) -> Tun:
            queues = config.lanes > 1
            return Tun(config.tun, offload=works, queues=queues, descriptor=descriptor)

        descriptor = passed.pop(TUN, None)
        if descriptor is not None:
            try:
                self.tun = make(descriptor)
            except TunError as error:
                if must:
                    raise
                self._drop(TUN, descriptor, error)
                descriptor = None
        if descriptor is None:
            self.tun = await open_tun(config.tun, self._node, self._thread, make)
        self._note(TUN, descriptor, by_daemon=must)
        self._has_tun = True
        self._result = result
        self._follow(result)

    @property
    def _wanted(self) -> tuple[str, ...]:
        config = self._config
        sockets = ("udp_gso",) * config.udp_gso + ("udp_gro",) * config.udp_gro
        return (*sockets, *config.tun_offload)

    def check(self, folder: StateFolder) -> Result:
        """What the self-test finds, or has found since the boot. Blocks; in any thread."""
        return recall(folder, self._wanted) or check_offloads(self._wanted)

    def remember(self, folder: StateFolder) -> None:
        """Let the next start know what the self-test found."""
        if self._result is not None:
            remember(folder, self._wanted, self._result)

    def _note(self, name: str, descriptor: int | None, *, by_daemon: bool) -> None:
        """What the service manager passed on, it has. What a daemon did, it may have."""
        if descriptor is not None:
            self._stored[name] = _UNSURE if by_daemon else descriptor

    def _drop(self, name: str, descriptor: int, error: NodeError) -> None:
        """What the service manager has kept is of no use: nobody shall have it any more."""
        self._log.warning("handover.refused", what=name, why=error.why)
        os.close(descriptor)
        self._notifier.forget(name)
        self._notifier.barrier(CONFIRM_PATIENCE)

    def _follow(self, result: Result) -> None:
        """Say what failed and was left off; switch it off where it is on already."""
        for name, why in result.failed.items():
            self._log.warning("offload.failed", offloads=name, why=why)
            if name in self.udp.offloads:
                self.udp.set_offload(name, on=False, endpoint=None)
        if result.trusted:
            self._log.info("offload.trusted", offloads="tun", why=result.trusted)

    async def keep(self) -> None:
        """Let both outlive this process, should it be killed. Cheap to call again and again."""
        try:
            await keep_tun(self.tun, self._node, self._thread)
        except (TunError, KernelError):
            return  # it is gone: whoever makes it anew comes here again
        for name, descriptor in self.descriptors.items() if self._notifier.stores else ():
            if self._stored.get(name) != descriptor:
                if name in self._stored:
                    self._notifier.forget(name)
                self._notifier.store(name, descriptor)
                self._stored[name] = descriptor

    def leave(self) -> None:
        """Close the descriptors alone; the service manager has both, and the interface with them.

        It is there as long as the manager has it: when the service is not started again, it goes.
        """
        if self._has_tun:
            with suppress(TunError):
                self.tun.unkeep()
        self.owned = False
        self.close()

    def close(self) -> None:
        """Close both; the interface goes, unless it is not (or no longer) ours. Twice is fine."""
        if self._has_tun:
            (self.tun.close if self.owned else self.tun.let_go)()
        if self._has_udp:
            self.udp.close()
