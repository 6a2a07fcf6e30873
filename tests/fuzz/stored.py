"""Files on disk, and what comes through local sockets and pipes.

Whoever wrote them had to be this user or root. They may still be damaged, cut or from elsewhere,
and whoever reads them must say so in one line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
from functools import cache, partial
from ipaddress import ip_network
from pathlib import Path

from node.cni import request as cni_request
from node.cni import text as cni_text
from node.cni.spec import CniError
from node.config import example, load_config
from node.control.handlers import Handlers
from node.control.peers import Rights
from node.control.schema import ControlError, Request, decode_answer, encode_error, encode_result
from node.control.server import ControlServer
from node.docker import requests as docker_requests
from node.docker.http import END_OF_HEAD, HttpError, decode_head
from node.docker.server import decode_body
from node.doctor import Examined, examine
from node.errors import NodeError
from node.lab.store import LabInfo
from node.lanes.setup import LaneSetup
from node.machine import read_facts_untrusted
from node.sealed import MAGIC, label_of
from node.state import AUTHORITY, CLUSTER, FILES, IDENTITY, seal, unseal
from node.transactions import TRANSACTION, Chain, apply, base_records, read_journal
from overlay.admission import _decode_names
from overlay.errors import ConfigError, WireError
from overlay.lanes import messages as lanes
from overlay.state import NodeState
from overlay.tokens import TokenBook
from overlay.wire.packing import pack
from tests.fuzz.target import Target, framed, frames, refusing
from tests.overlay.lanes.test_messages import ORDERS, REPORTS
from tests.overlay.test_state import EXAMPLE
from tests.support.daemon import FakeDaemon

SALT = bytes(range(16))


def journal(data: bytes) -> None:
    """A file that may be one; what is torn off it leaves a file that is whole."""
    contents = refusing(read_journal, ConfigError)(data)
    if contents is None:
        return
    again = read_journal(data[: contents.length])
    assert (again.entries, again.torn) == (contents.entries, "")
    refusing(NodeState.from_entries, WireError)(contents.entries)


def entries(data: bytes) -> None:
    """A journal whose checksums are right, with anything at all in its entries."""
    parts = list(frames(data, 12))
    stored = dict(NodeState().entries())
    apply(stored, list(zip(parts[::2], parts[1::2], strict=False)))
    read = read_journal(_base(stored)[0]).entries
    assert read == stored
    state = refusing(NodeState.from_entries, WireError)(read)
    if state is not None:
        assert NodeState.from_entries(state.entries()) == state
        refusing(TokenBook.decode, WireError)(state.tokens)
        refusing(_decode_names, WireError)(state.names)


def _base(stored: dict[bytes, bytes]) -> tuple[bytes, Chain]:
    """A journal of these entries, and where its next record goes."""
    content, last = Chain(SALT).header(), Chain(SALT)
    for record, behind in base_records(stored, last):
        content, last = content + record, behind
    return content, last


def books(data: bytes) -> None:
    """The tokens, and the names that were given."""
    book = refusing(TokenBook.decode, WireError)(data)
    assert book is None or TokenBook.decode(book.encode()).encode() == book.encode()
    refusing(_decode_names, WireError)(data)


def sealed_file(data: bytes) -> None:
    """A file with one line in front of its content."""
    for file in FILES:
        refusing(lambda _, file=file: unseal(file, data), ConfigError)(b"")


def config(data: bytes) -> None:
    """Settings of a person: all that is wrong with them is one error of one line."""
    path = _folder() / "config.toml"
    path.write_bytes(data)
    refusing(lambda _: load_config(path, {}), ConfigError)(b"")


@cache
def _folder() -> Path:
    _KEPT.append(tempfile.TemporaryDirectory(prefix="muslin-fuzz-"))
    return Path(_KEPT[-1].name)


_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def lab_file(data: bytes) -> None:
    """What a lab left behind in its folder."""
    text = data.decode("utf-8", "replace")
    refusing(lambda _: LabInfo.decode(text, Path("lab")), NodeError)(b"")


def sealed(data: bytes) -> None:
    """A file under a passphrase, before anybody says it."""
    for content in (data, MAGIC + data):
        label = refusing(label_of, ConfigError)(content)
        assert label is None or label in content


def _sealed() -> list[bytes]:
    return [pack([1, 15, 8, 3, bytes(16), b"label", bytes(12), bytes(48)])]


def request(data: bytes) -> None:
    """A line for the daemon, and one from it."""
    asked = refusing(Request.decode, ControlError)(data)
    if asked is not None:
        assert Request.decode(asked.encode()) == asked
        encode_result(asked.id, asked.method)
        encode_error(asked.id, ControlError("code", asked.method, asked.method))
    refusing(decode_answer, ControlError)(data)


def served(data: bytes) -> None:
    """A line as the daemon answers it: always with one line, and never with a defect."""
    logging.disable(logging.CRITICAL)
    try:
        answer = _loop().run_until_complete(_server()._answer(data, Rights.ALL))
    finally:
        logging.disable(logging.NOTSET)
    assert answer.endswith(b"\n")
    assert answer.count(b"\n") == 1
    error = json.loads(answer).get("error")
    assert error is None or error["code"] != "internal", error


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@cache
def _server() -> ControlServer:
    daemon = FakeDaemon()
    daemon.handlers = Handlers(daemon)
    return ControlServer(_folder() / "control.sock", daemon.handlers.dispatch)


def lane(data: bytes) -> None:
    """What a lane and its daemon say to each other."""
    for decode in (lanes.decode_order, lanes.decode_report, LaneSetup.decode):
        decoded = refusing(decode, WireError)(data)
        if isinstance(decoded, LaneSetup):
            assert LaneSetup.decode(decoded.encode()) == decoded
        elif decoded is not None:
            packed = lanes.encode(decoded)  # as bytes: a number that is none equals nothing
            assert lanes.encode(decode(packed)) == packed


# -- seeds -----------------------------------------------------------------------------------------


def _journals() -> list[bytes]:
    content, chain = _base(EXAMPLE.entries())
    record, _ = chain.record(TRANSACTION, [(b"boot", pack([9])), (b"left", None)])
    return [content, content + record, content + record[:-3]]


def _entries() -> list[bytes]:
    return [framed(*[part for pair in EXAMPLE.entries().items() for part in pair][:24])]


def _books() -> list[bytes]:
    token = [bytes(16), bytes(32), 1_800_000_000, 1_700_000_000, b"", b"", True]
    return [pack([1, [token]]), pack([1, 7, [["node1", b"n" * 32]]])]


def _requests() -> list[bytes]:
    asked: list[tuple[str, dict[str, object]]] = [
        ("status", {}),
        ("get", {"kind": "pods"}),
        ("get", {"kind": "sessions"}),
        ("token", {"ttl": 60.0}),
        ("pod.get", {"name": "web"}),
        ("pod.del", {"name": "web"}),
        ("ipam.check", {}),
        ("token.list", {}),
        ("token.revoke", {"id": "00"}),
        ("cert.show", {"node": "node2"}),
        ("cert.sign", {"request": "muslin-request1-", "routes": ["192.0.2.0/24"]}),
        ("cert.install", {"certificate": "00"}),
        ("authority.use", {"key": "00"}),
        ("authority.unlock", {"passphrase": "words"}),
        ("remove", {"name": "node2"}),
    ]
    return [Request(7, method, params).encode() for method, params in asked] + [
        encode_error(1, ControlError("code", "why", "fix"))
    ]


def docker(data: bytes) -> None:
    """A request on the plugin's socket: head, body, and whatever may be asked with that body."""
    before, end, after = data.partition(END_OF_HEAD)
    head = refusing(decode_head, HttpError)(before + end)
    body = None if head is None else refusing(decode_body, HttpError)(after[: head.length])
    if body is None:
        return
    ranges = {4: ip_network("10.244.0.0/16"), 6: None}
    for read in (
        docker_requests.check_network,
        docker_requests.pool_version,
        docker_requests.address_wanted,
        lambda body: docker_requests.pool_wanted(body, ranges),
        lambda body: docker_requests.is_gateway(body, None),
    ):
        refusing(read, ControlError)(body)
    wanted = refusing(docker_requests.endpoint_wanted, ControlError)(body)
    if wanted is not None:
        choose = partial(docker_requests.choose_ports, wanted.ports)
        refusing(choose, ControlError)(())


def _docker() -> list[bytes]:
    endpoint = {
        "NetworkID": "ab",
        "EndpointID": "cd",
        "PoolID": "0.0.0.0/0",
        "Address": "10.244.0.7",
        "Interface": {"Address": "10.244.0.7/32", "AddressIPv6": "fd00::7/128"},
        "IPv4Data": [{"AddressSpace": "muslin"}],
        "Options": {
            docker_requests.OPTION_PORTS: [
                {"Proto": 6, "Port": 80, "HostIP": "0.0.0.0", "HostPort": 0, "HostPortEnd": 0}
            ]
        },
    }
    bodies = [json.dumps(body).encode() for body in ({}, endpoint)]
    return [
        b"POST /IpamDriver.X HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        for body in bodies
    ]


def cni(data: bytes) -> None:
    """The configuration that a runtime gives the plugin, and what it asks of it."""
    config = refusing(cni_text.decode, ValueError)(data.decode("utf-8", "replace"))  # type: ignore[arg-type]
    if not isinstance(config, dict):
        return
    assert cni_text.decode(cni_text.encode(config)) == config
    there = cni_request.Attachment("c", "eth0", "/run/netns/x")
    for read in (
        cni_request.check_config,
        cni_request.network_of,
        lambda config: cni_request.state_of(config, {}),
        lambda config: cni_request.add_params(config, there, "IP=10.244.0.9"),
        cni_request.kept_by,
        cni_request.dns_of,
    ):
        refusing(read, CniError)(config)


def _cni() -> list[bytes]:
    config = {
        "cniVersion": "1.1.0",
        "name": "muslin",
        "type": "muslin-cni",
        "runtimeConfig": {
            "ips": ["10.244.0.9/24"],
            "bandwidth": {"ingressRate": 8000, "ingressBurst": 8000},
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
            "dns": {"servers": ["192.0.2.53"]},
        },
        "cni.dev/valid-attachments": [{"containerID": "c", "ifname": "eth0"}],
    }
    return [json.dumps(config).encode()]


def facts(data: bytes) -> None:
    """What a member says of its machine, and what is made of it."""
    said = read_facts_untrusted(data.decode("utf-8", "replace"))
    for finding in examine([Examined("a", True, {"mtu": 1500}), Examined("b", False, said)]):
        assert finding.what.isprintable()


def _lanes() -> list[bytes]:
    setup = LaneSetup(1, b"n", "::", 6876, "muslin0", ["tso"], "uvloop", "", "")
    return [*map(lanes.encode, [*ORDERS, *REPORTS]), setup.encode()]


def _lab() -> bytes:
    lab = {
        "format": 1, "name": "lab", "nodes": 2, "pods": 1, "underlay": "198.51.100.0/24",
        "mtu": 1500, "cidr": "10.244.0.0/16", "complete": True, "cluster": "c",
        "cuts": [["a", "b"]], "settings": {"a": "b"},
    }  # fmt: skip
    return json.dumps(lab).encode()


TARGETS = [
    Target("journal", journal, _journals),
    Target("entries", entries, _entries),
    Target("books", books, _books),
    Target(
        "sealed-file",
        sealed_file,
        lambda: [seal(IDENTITY, bytes(64)), seal(CLUSTER, b"\x90"), seal(AUTHORITY, bytes(32))],
    ),
    Target("config", config, lambda: [example().encode(), b"lanes = 2\n[log]\nlevel = 'debug'\n"]),
    Target("lab-file", lab_file, lambda: [_lab()]),
    Target("sealed", sealed, _sealed),
    Target("request", request, _requests),
    Target("served", served, _requests, 600),
    Target("lane", lane, _lanes),
    Target("docker", docker, _docker),
    Target("cni", cni, _cni),
    Target("facts", facts, lambda: [b'{"mtu":1400,"crossed":["10.244.7.0/24"],"time":1.5}']),
]
