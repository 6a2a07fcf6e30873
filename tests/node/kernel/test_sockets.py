from __future__ import annotations

import socket
import struct
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest

from node.kernel.sockets import taken_by_socket
from overlay.attachment import HostPort, Protocol
from overlay.types import Endpoint

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n"


def row(host: str, port: int, state: str) -> str:
    words = struct.iter_unpack("=I", ip_address(host).packed)
    digits = "".join(f"{word:08X}" for (word,) in words)
    return f"   0: {digits}:{port:04X} {'0' * len(digits)}:0000 {state} 00000000:00000000 00:0\n"


def tables(folder: Path, **files: list[str]) -> Path:
    for name, rows in files.items():
        (folder / name).write_text(HEAD + "".join(rows))
    return folder


@pytest.mark.parametrize(
    ("wanted", "held", "meets"),
    [
        ("", "0.0.0.0", True),
        ("", "192.0.2.1", True),
        ("", "::", True),
        ("192.0.2.1", "0.0.0.0", True),
        ("192.0.2.1", "::", True),
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "2001:db8::1", False),
        ("0.0.0.0", "192.0.2.1", True),
        ("0.0.0.0", "2001:db8::1", False),
        ("::", "2001:db8::1", True),
        ("::", "192.0.2.1", False),
        ("2001:db8::1", "0.0.0.0", False),
    ],
)
@pytest.mark.parametrize(("protocol", "state"), [("tcp", "0A"), ("udp", "07")])
def test_a_port_is_taken_where_both_would_hear_it(
    tmp_path: Path, wanted: str, held: str, meets: bool, protocol: Protocol, state: str
) -> None:
    name = protocol + ("6" if ":" in held else "")
    folder = tables(tmp_path, **{name: [row(held, 8080, state)]})
    found = taken_by_socket(HostPort(protocol, 8080, 80, wanted), folder)
    assert found == (Endpoint(held, 8080) if meets else None)


def test_connections_and_other_ports_are_nobodys_loss(tmp_path: Path) -> None:
    listening = [row("0.0.0.0", 22, "0A"), row("192.0.2.1", 8080, "01")]
    folder = tables(tmp_path, tcp=listening, udp=[row("192.0.2.1", 8080, "01")])
    for port in (HostPort("tcp", 8080, 80), HostPort("udp", 8080, 80), HostPort("sctp", 22, 22)):
        assert taken_by_socket(port, folder) is None


def test_of_many_connections_only_the_first_is_looked_at(tmp_path: Path) -> None:
    """Listening sockets come first; a table of connections may be long."""
    rows = [row("0.0.0.0", 22, "0A"), row("192.0.2.1", 8080, "01"), "not a row\n"]
    assert taken_by_socket(HostPort("tcp", 8080, 80), tables(tmp_path, tcp=rows)) is None


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_the_kernel_says_so_itself(family: socket.AddressFamily, host: str) -> None:
    with ExitStack() as stack:
        for kind, protocol in ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")):
            server = stack.enter_context(socket.socket(family, kind))
            server.bind((host, 0))
            number = server.getsockname()[1]
            port = HostPort(protocol, number, 80)  # type: ignore[arg-type]
            if protocol == "tcp":
                assert taken_by_socket(port) is None, "bound, but nobody listens"
                server.listen()
            assert taken_by_socket(port) == Endpoint(host, number)
