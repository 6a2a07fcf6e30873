"""Tests of overlay/PROTOCOL.md: what it says in tables and examples is what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

import overlay
from overlay.config import Limits, Settings, Timing
from overlay.drops import DropReason
from overlay.gossip.store import Store
from overlay.keys import StaticKey
from overlay.routing import mtu
from overlay.session.cookie import MacMaker
from overlay.session.handshake import Admission, Attempt, answer, read_initiation_untrusted
from overlay.session.suites import Suite, suite_name, transport_key
from overlay.types import Endpoint, NodeId
from overlay.views import NodeState
from overlay.wire import header
from overlay.wire.burst import TAG_SIZE, BlockKind
from overlay.wire.control import (
    Delta,
    Digest,
    DigestEntry,
    Goodbye,
    Message,
    PathProbe,
    Probe,
    Refusal,
    Summary,
    Want,
    decode_untrusted,
    encode,
)
from overlay.wire.handshake import Initiation, JoinerHello, MemberHello, Response
from overlay.wire.header import HEADER_SIZE, Header
from overlay.wire.items import Item

DOCUMENT = Path(overlay.__file__).with_name("PROTOCOL.md")


@cache
def text() -> str:
    return DOCUMENT.read_text()


def section(title: str) -> str:
    """What stands under a heading, up to the next one of the same or a higher level."""
    match = re.search(rf"^(#+) (?:\d+\. )?{re.escape(title)}\n", text(), re.MULTILINE)
    assert match, f"no section {title}"
    rest = text()[match.end() :]
    end = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def tables(title: str) -> list[list[list[str]]]:
    """The tables of a section: rows of cells, without the head."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", section(title), re.MULTILINE):
        rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in block.splitlines()
        ]
        found.append(rows[2:])
    return found


def plain(cell: str) -> str:
    """A cell without its code marks."""
    return cell.strip("`")


def code(title: str, after: str = "") -> bytes:
    """The indented hex block behind `after` in a section."""
    rest = section(title).partition(after)[2]
    lines = re.search(r"\n\n((?:    [0-9a-f]+\n)+)", rest)
    assert lines, f"no hex behind {after!r}"
    return bytes.fromhex(lines[1])


# -- the document itself -----------------------------------------------------------------------


def test_the_table_of_contents_lists_the_chapters() -> None:
    chapters = re.findall(r"^## (\d+)\. (.+)$", text(), re.MULTILINE)
    listed = re.findall(r"^(\d+)\. \[(.+)\]\(#(.+)\)$", text(), re.MULTILINE)
    assert [(number, title) for number, title, _ in listed] == chapters
    for number, title, anchor in listed:
        assert anchor == f"{number}-{re.sub('[^a-z ]', '', title.lower()).replace(' ', '-')}"


def test_every_chapter_that_is_referred_to_exists() -> None:
    chapters = len(re.findall(r"^## ", text(), re.MULTILINE))
    assert all(0 < int(number) <= chapters for number in re.findall(r"section (\d+)", text()))


def test_every_table_has_as_many_cells_in_each_row_as_in_its_head() -> None:
    for block in re.findall(r"(?:^\|.*\n)+", text(), re.MULTILINE):
        widths = {len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block


# -- tables ------------------------------------------------------------------------------------


def test_timers_and_limits_are_those_of_the_settings() -> None:
    expected = {
        field.name: getattr(settings, field.name)
        for settings in (Timing(), Limits(), Settings())
        for field in fields(settings)
        if isinstance(getattr(settings, field.name), float | int)
        and not isinstance(getattr(settings, field.name), bool)
    }
    written = {plain(name): float(value) for name, value, _ in tables("Timers and limits")[0]}
    assert written == expected
    assert list(written) == list(expected)


@pytest.mark.parametrize(("name", "value"), [tuple(row) for row in tables("Timers and limits")[1]])
def test_a_constant_has_the_value_that_is_written(name: str, value: str) -> None:
    module, _, constant = plain(name).rpartition(".")
    assert getattr(import_module(module), constant) == float(value)


def test_drop_reasons_are_all_there_in_order_and_mean_the_same() -> None:
    source = Path(overlay.__file__).with_name("drops.py").read_text()
    comments = dict(re.findall(r'= "(\w+)"  #: (.+)', source))
    written = [(plain(reason), meaning) for reason, meaning in tables("Drop reasons")[0]]
    assert written == [(str(reason), comments[reason]) for reason in DropReason]


def test_datagram_types_are_those_of_the_header() -> None:
    types = {
        name.removeprefix("TYPE_").lower().replace("_", " "): value
        for name, value in vars(header).items()
        if name.startswith("TYPE_")
    }
    assert {name: int(number) for number, name in tables("Datagrams")[1]} == types


def test_block_kinds_are_those_of_the_code() -> None:
    written = {name: int(number) for number, name, _ in tables("Blocks")[0]}
    assert written == {kind.name.lower(): kind.value for kind in BlockKind}


def test_suites_are_those_of_the_code() -> None:
    written = {int(number): name for number, name in tables("Messages")[-1]}
    assert written == {suite.value: suite_name(suite) for suite in Suite}
    for suite in Suite:
        assert f"`{suite_name(suite)}`" in section("Keys and nonces")


def test_control_messages_have_the_numbers_and_fields_of_the_code() -> None:
    written = {}
    for number, name, listed in tables("Control messages")[0]:
        names = [] if listed == "none" else [each.split()[0] for each in listed.split(", ")]
        written[name] = (int(number), names)
    expected = {}
    for kind in get_args(Message):
        names = [field.name for field in fields(kind)]
        expected[kind.__name__] = (len(expected) + 1, names)
    assert written == expected
    assert Goodbye() == decode_untrusted(bytes([0x91, written["Goodbye"][0]]))


def test_signature_contexts_are_those_of_the_code() -> None:
    written = {plain(context) for context, _, _ in tables("Signatures")[0]}
    used = set()
    for path in DOCUMENT.parent.rglob("*.py"):
        used |= set(re.findall(r'^_?(?:JOIN)?_?CONTEXT: Final = "(\w+)"', path.read_text(), re.M))
    assert written == used


def test_refusal_codes_are_those_of_the_code() -> None:
    source = "".join(
        DOCUMENT.with_name(name).read_text() for name in ("admission.py", "steward.py")
    )
    for code_cell in (row[-1] for row in tables("Decision")[0] if row[-1]):
        assert f'"{plain(code_cell)}"' in source
    for code_cell, _ in tables("Getting a block")[0]:
        allocator = DOCUMENT.with_name("holdings.py").read_text()
        assert f'"{plain(code_cell)}"' in source + allocator


def test_member_states_are_those_of_the_code() -> None:
    assert [state for state, _ in tables("Membership")[0]] == [str(state) for state in NodeState]


def test_path_mtu_candidates_are_those_of_the_code() -> None:
    listed = re.search(r"Candidates are ([\d,\s]+), as far", section("Path MTU"))
    assert listed
    assert tuple(map(int, listed[1].split(","))) == (mtu.BASE, *mtu.CANDIDATES)


# -- examples ----------------------------------------------------------------------------------


def test_control_messages_have_the_bytes_that_are_written() -> None:
    item = Item(b"b\0\0\0\1", 3, b"xyz")
    messages = [
        Probe(7),
        PathProbe(1400, bytes(2)),
        Summary(b"rootroot", 12),
        Digest((DigestEntry(item.key, 3, b"fingerpr"),), complete=True),
        Want(()),
        Delta((item,)),
        Refusal(9, "no-block", "all in use"),
        Goodbye(),
    ]
    written = [bytes.fromhex(plain(hexes)) for _, hexes in tables("Test vectors")[0]]
    assert written == [encode(message) for message in messages]


def test_the_hello_has_the_bytes_that_are_written() -> None:
    hexes = re.search(r"is\n?\s*`(94 01 [0-9a-f ]+)`", section("Test vectors"))
    assert hexes
    hello = MemberHello((1 << 32) + 5, b"cert", (1, 2))
    assert bytes.fromhex(hexes[1]) == hello.encode()


def test_stores_have_the_roots_that_are_written() -> None:
    store = Store(lambda _: True, Limits())
    roots = re.findall(r"`([0-9a-f]{16})`", section("Roots"))
    store.put(Item(b"b\0\0\0\0", 1, b"deeds"))
    assert store.root().hex() == roots[0]
    store.put(Item(b"n" + bytes(32), 1 << 32, b"record"))
    assert store.root().hex() == roots[1]


def test_the_handshake_has_the_bytes_that_are_written() -> None:
    title = "A handshake"
    initiator, responder = StaticKey(b"\1" * 32), StaticKey(b"\2" * 32)
    for key in (initiator, responder):
        assert key.public.hex() in section(title)
    node = NodeId(b"\7" * 32)
    attempt = Attempt(
        static=initiator,
        remote_static=responder.public,
        psk=b"\5" * 32,
        hello=JoinerHello(b"\6" * 16, node, (1, 2)),
        index=0x01020304,
        entropy=lambda size: b"\3" * size,
    )
    initiation = MacMaker(responder.public).with_macs(attempt.datagram, 0.0)
    assert initiation == code(title, "Initiation:")
    received = read_initiation_untrusted(Initiation.decode_untrusted(initiation), responder)
    encoded, _ = answer(
        received,
        Admission(b"\5" * 32, Suite.AES_256_GCM, joiner=node, joiner_token=b"\6" * 16),
        index=0x05060708,
        observed=Endpoint("192.0.2.1", 6875),
        entropy=lambda size: b"\4" * size,
        now=0.0,
        expires_at=180.0,
    )
    response = MacMaker(initiator.public).with_macs(encoded, 0.0)
    assert response == code(title, "Response:")
    assert received.noise.transcript.hex() in section(title)
    k2, k1 = received.noise.split()
    for key in (k1, k2):
        assert key.hex() in section(title)
        assert transport_key(key, Suite.AES_256_GCM).hex() in section(title)
    keypair, _ = attempt.finish_untrusted(
        Response.decode_untrusted(response), node=node, now=0.0, expires_at=180.0
    )
    first = Header(header.TYPE_DATA, receiver=0x05060708, counter=keypair.next_counter())
    sealed = bytearray(len(b"hello") + TAG_SIZE)
    keypair.seal_into(first.counter, b"hello", first.associated_data(), sealed)
    assert first.encode() + sealed == code(title, "First datagram")
    assert len(first.encode()) == HEADER_SIZE
