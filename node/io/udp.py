"""The UDP socket of the underlay: IPv4 and IPv6 in one, segmented sends, coalesced receives.

`UDP_SEGMENT` takes a run of equal datagrams in one `sendmsg`; `UDP_GRO` gives such a run back in
one `recvmsg`. Kernels or devices that lack either cost speed, nothing else: sends are then one
system call per datagram, and every receive returns one.

The don't-fragment bit is always set, and the kernel's own idea of the path MTU ignored
(`IP_PMTUDISC_PROBE`): the path MTU is probed by `overlay.routing.mtu`, never believed from ICMP.

References:
    udp(7), ip(7), ipv6(7); RFC 8899, section 4.
"""

from __future__ import annotations

import errno
import socket
from struct import Struct
from typing import Final

from node.errors import NodeError
from node.io.ports import Received
from overlay.types import Endpoint

SOL_UDP: Final = 17
UDP_SEGMENT: Final = 103
UDP_GRO: Final = 104
IP_MTU_DISCOVER: Final = 10
IPV6_MTU_DISCOVER: Final = 23
PMTUDISC_PROBE: Final = 3
SO_SNDBUFFORCE: Final = 32
SO_RCVBUFFORCE: Final = 33

BUFFER_SIZE: Final = 8 << 20
"""Socket buffers. A burst is charged about 90 KB; this holds some 90 of them, a few milliseconds
at line rate, which is what a busy event loop may be away."""

_STEP: Final = Struct("=H")
_GRO_STEP: Final = Struct("=i")
_MAX_CACHED: Final = 4096
_MAPPED: Final = "::ffff:"
"""In front of an IPv4 address on a socket for both."""
_V4_ANY: Final = "0.0.0.0"  # noqa: S104 (compared)
_GSO_REFUSED: Final = (errno.EIO, errno.EOPNOTSUPP, errno.ENOPROTOOPT)


class UdpError(NodeError):
    """The socket could not be made."""


class UdpSocket:
    """A bound, non-blocking UDP socket.

    Args:
        listen: address and port; `::` listens on IPv4 as well.
        gso: False forces one system call per datagram.
        gro: False forces one datagram per receive.
        shared: a bound socket that another process reads from; this one only sends. `listen` then
            only names it.
        descriptor: of a socket that another process has bound and passed on; closed with this.

    Raises:
        UdpError: the port is in use, the address is not this machine's, or `descriptor` is not a
            socket that listens there; then it is still open.
    """

    def __init__(
        self,
        listen: Endpoint,
        *,
        gso: bool = True,
        gro: bool = True,
        shared: socket.socket | None = None,
        descriptor: int | None = None,
    ) -> None:
        if shared is not None:
            self._socket, self._dual = shared, shared.family == socket.AF_INET6
            self._gro = False  # only its owner reads
        else:
            bound = _bind(listen) if descriptor is None else _adopt(descriptor, listen)
            self._socket, self._dual = bound
            self._gro = gro and _try_option(self._socket, SOL_UDP, UDP_GRO, 1)
            _tune(self._socket, dual=self._dual)
        self.local = Endpoint(listen.host, self._socket.getsockname()[1])
        self._gso = gso
        self._buffer = memoryview(bytearray(1 << 17))
        self._targets: dict[Endpoint, tuple[str, int]] = {}
        self._sources: dict[tuple[str, int], Endpoint] = {}
        self._too_big: set[Endpoint] = set()
        self._singly: set[Endpoint] = set()

    @property
    def offloads(self) -> tuple[str, ...]:
        """`udp_gso` and `udp_gro` where in use now."""
        return ("udp_gso",) * self._gso + ("udp_gro",) * self._gro

    def fileno(self) -> int:
        """The descriptor to watch for readability."""
        return self._socket.fileno()

    # -- sending -----------------------------------------------------------------------------------

    def send(self, endpoint: Endpoint, datagrams: memoryview, step: int) -> bool:
        """Send datagrams of `step` bytes each, back to back (0: one); False when refused."""
        target = self._targets.get(endpoint) or self._target(endpoint)
        if not step or step >= len(datagrams):
            return self._send_one(endpoint, target, datagrams)
        if not self._gso or (self._singly and endpoint in self._singly):
            return self._send_each(endpoint, target, datagrams, step)
        try:
            self._socket.sendmsg([datagrams], [(SOL_UDP, UDP_SEGMENT, _STEP.pack(step))], 0, target)
        except OSError as error:
            if error.errno in _GSO_REFUSED:
                self._gso = False
                return self._send_each(endpoint, target, datagrams, step)
            # Too big for the interface: older kernels call that EINVAL in a segmented send.
            too_big = error.errno in (errno.EMSGSIZE, errno.EINVAL)
            return self._failed(endpoint, too_big=too_big)
        return True

    def _send_each(
        self, endpoint: Endpoint, target: tuple[str, int], datagrams: memoryview, step: int
    ) -> bool:
        for at in range(0, len(datagrams), step):
            if not self._send_one(endpoint, target, datagrams[at : at + step]):
                return False
        return True

    def _send_one(self, endpoint: Endpoint, target: tuple[str, int], datagram: memoryview) -> bool:
        try:
            self._socket.sendto(datagram, target)
        except OSError as error:
            return self._failed(endpoint, too_big=error.errno == errno.EMSGSIZE)
        return True

    def _failed(self, endpoint: Endpoint, *, too_big: bool) -> bool:
        if too_big:
            self._too_big.add(endpoint)
        return False

    def set_offload(self, name: str, *, on: bool, endpoint: Endpoint | None) -> None:
        """Use `udp_gso` towards `endpoint` (None: anybody), or `udp_gro`, from now on, or not."""
        if name == "udp_gro":
            self._gro = _try_option(self._socket, SOL_UDP, UDP_GRO, int(on)) and on
        elif endpoint is None:
            self._gso = on
        elif on:
            self._singly.discard(endpoint)
        else:
            if len(self._singly) >= _MAX_CACHED:
                self._singly.clear()
            self._singly.add(endpoint)

    def take_too_big(self) -> set[Endpoint]:
        """Endpoints whose datagrams were too big for the interface since the last call."""
        taken, self._too_big = self._too_big, set()
        return taken

    def _target(self, endpoint: Endpoint) -> tuple[str, int]:
        host = endpoint.host
        if self._dual and ":" not in host:
            host = f"::ffff:{host}"
        if len(self._targets) >= _MAX_CACHED:
            self._targets.clear()
        self._targets[endpoint] = (host, endpoint.port)
        return host, endpoint.port

    # -- receiving ---------------------------------------------------------------------------------

    def receive(self) -> Received | None:
        """Read once; None when there is nothing now."""
        try:
            size, ancillary, _, address = self._socket.recvmsg_into([self._buffer], 64)
        except BlockingIOError:
            return None
        except ConnectionError:  # an ICMP error for an earlier send: a hint we do not need
            return None
        step = 0
        for level, kind, value in ancillary:
            if level == SOL_UDP and kind == UDP_GRO:
                step = _GRO_STEP.unpack_from(value)[0]
        source = self._sources.get(address[:2]) or self._source(address[:2])
        return Received(self._buffer[:size], step, source)

    def _source(self, address: tuple[str, int]) -> Endpoint:
        # Anybody can send from any address: what they fill must not grow.
        if len(self._sources) >= _MAX_CACHED:
            self._sources.clear()
        source = self._sources[address] = _endpoint(*address)
        return source

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _endpoint(host: str, port: int) -> Endpoint:
    if host.startswith(_MAPPED) and "." in host:
        # As the kernel's own text is in the shortest form, what is behind is the IPv4 address.
        # A flood may come from so many that each has to be read anew.
        return Endpoint(host[len(_MAPPED) :], port)
    return Endpoint.of(host, port)


def _bind(listen: Endpoint) -> tuple[socket.socket, bool]:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        bound = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        if listen.host != "::":
            why = f"cannot listen on {listen}: {_reason(error)}"
            raise UdpError(why, "listen on an IPv4 address") from error
        return _bind(Endpoint("0.0.0.0", listen.port))  # noqa: S104 (what the operator asked for)
    dual = family == socket.AF_INET6
    try:
        if dual:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind((listen.host, listen.port))
    except OSError as error:
        bound.close()
        fix = _FIXES.get(error.errno or 0, "")
        raise UdpError(f"cannot listen on {listen}: {_reason(error)}", fix) from error
    return bound, dual


def _adopt(descriptor: int, listen: Endpoint) -> tuple[socket.socket, bool]:
    why = f"the socket that was passed on does not listen on {listen}"
    refusal = UdpError(why, "stop the daemon and start it again")
    try:
        adopted = socket.socket(fileno=descriptor)
    except OSError as error:
        raise refusal from error
    host, port = (*adopted.getsockname(), 0, 0)[:2]
    # `::` is 0.0.0.0 where there is no IPv6.
    is_there = host in {listen.host, _V4_ANY} and listen.port in {0, port}
    if adopted.type != socket.SOCK_DGRAM or not is_there:
        adopted.detach()
        raise refusal
    adopted.setblocking(False)
    adopted.set_inheritable(False)
    return adopted, adopted.family == socket.AF_INET6


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0, str(error.strerror).lower())


_REASONS: Final = {
    errno.EADDRINUSE: "the UDP port is in use",
    errno.EADDRNOTAVAIL: "this machine does not have the address",
    errno.EAFNOSUPPORT: "this machine has no IPv6",
}
_FIXES: Final = {
    errno.EADDRINUSE: "stop the other program, or choose another port",
    errno.EADDRNOTAVAIL: "choose one that it has, or 0.0.0.0 or :: for all of them",
    errno.EACCES: "choose a port above 1023, or run as root",
}


def _tune(bound: socket.socket, *, dual: bool) -> None:
    _try_option(bound, socket.IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_PROBE)
    if dual:
        _try_option(bound, socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
    for forced, plain in ((SO_SNDBUFFORCE, socket.SO_SNDBUF), (SO_RCVBUFFORCE, socket.SO_RCVBUF)):
        if not _try_option(bound, socket.SOL_SOCKET, forced, BUFFER_SIZE):
            _try_option(bound, socket.SOL_SOCKET, plain, BUFFER_SIZE)


def _try_option(bound: socket.socket, level: int, option: int, value: int) -> bool:
    try:
        bound.setsockopt(level, option, value)
    except OSError:
        return False
    return True
