"""Tests of overlay/PROTOCOL.md: what it says in tables and examples is what the code does."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from importlib import import_module
from inspect import getsource
from pathlib import Path
from typing import get_args

import pytest

import overlay
from overlay import steward
from overlay.admission import Registrar
from overlay.config import Limits, Settings, Timing
from overlay.drops import DropReason
from overlay.forwarding.inbound import Inbound
from overlay.forwarding.outbound import Outbound
from overlay.gossip.store import Store
from overlay.holdings import Holdings
from overlay.keys import StaticKey
from overlay.routing import mtu
from overlay.session.cookie import MacMaker
from overlay.session.handshake import Admission, Attempt, answer, read_initiation_untrusted
from overlay.session.suites import Suite, suite_name, transport_key
from overlay.session.timing import (
    expires_at,
    fallback_rekey_at,
    give_up_at,
    rekey_at,
    retry_delay,
)
from overlay.session.transport import REKEY_COUNTER
from overlay.steward import Steward
from overlay.types import Endpoint, NodeId
from overlay.views import NodeState
from overlay.wire import header
from overlay.wire.burst import TAG_SIZE, BlockKind
from overlay.wire.claims import ClaimState
from overlay.wire.control import _NUMBERS, decode_untrusted, encode
from overlay.wire.handshake import Initiation, JoinerHello, MemberHello, Response
from overlay.wire.header import HEADER_SIZE, Header
from overlay.wire.items import Item
from overlay.wire.messages import (
    BenchDone,
    BenchReady,
    BenchRequest,
    BlockRequest,
    Buckets,
    Claims,
    Delta,
    Facts,
    FactsRequest,
    Goodbye,
    Have,
    Ids,
    IndirectProbe,
    IndirectReply,
    JoinGrant,
    JoinRequest,
    LaneProbe,
    LaneProbeReply,
    Lanes,
    Message,
    PathProbe,
    PathProbeReply,
    Probe,
    ProbeReply,
    ReadSingly,
    Refusal,
    RenewGrant,
    RenewRequest,
    SegmentLoss,
    Summary,
    Trial,
    TrialReply,
    Want,
)

DOCUMENT = Path(overlay.__file__).with_name("PROTOCOL.md")

ITEM = Item(b"b\0\0\0\1", 3, b"xyz")

MESSAGES: tuple[Message, ...] = (
    Probe(7),
    ProbeReply(7),
    PathProbe(1400, bytes(2)),
    PathProbeReply(1400),
    Summary(b"rootroot", 12, b"clmsroot"),
    Buckets(bytes(2048)),
    Ids(b"\1\2", b"identity"),
    Delta((ITEM,)),
    BlockRequest(9),
    Refusal(9, "no-block", "all in use"),
    JoinRequest(9, "node-b", bytes(32), bytes(64)),
    JoinGrant(9, b"certificate", b"cluster", bytes(32), (ITEM,)),
    Goodbye(),
    Trial(3, 7, bytes(2)),
    TrialReply(3, 5, coalesced=True),
    ReadSingly(),
    SegmentLoss(300),
    BenchRequest(9, bytes(4), b"", 30),
    BenchReady(9, bytes(32), 40000, 0),
    BenchDone(9),
    Lanes(2, 3, 7),
    LaneProbe(1, 7),
    LaneProbeReply(1, 7),
    Have(b"identity", confirm=True),
    Want(b""),
    Claims((), ask=True),
    IndirectProbe(7, NodeId(bytes(32))),
    IndirectReply(7, reached=True),
    RenewRequest(9),
    RenewGrant(9, b"certificate"),
    FactsRequest(9),
    Facts(9, "{}"),
)


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


@pytest.mark.parametrize(
    ("title", "settings"),
    [("Timers", Timing()), ("Limits", Limits()), ("Packet sizes and certificates", Settings())],
)
def test_timers_and_limits_are_those_of_the_settings(
    title: str, settings: Timing | Limits | Settings
) -> None:
    values = [(field.name, getattr(settings, field.name)) for field in fields(settings)]
    expected = [(name, value) for name, value in values if type(value) in (int, float)]
    (table,) = tables(title)
    assert [(plain(name), float(value)) for name, value, _ in table] == expected
    assert all(meaning for _, _, meaning in table)


def test_handshakes_are_repeated_after_the_waits_that_are_written() -> None:
    (row,) = [row for row in tables("When handshakes happen")[0] if row[0] == "retry"]
    waits = [float(wait) for wait in row[1].removesuffix(", ... s").split(", ")]
    tries = range(1, len(waits) + 1)
    assert waits == [retry_delay(number, 0.0, Timing()) for number in tries]
    assert waits[-1] == retry_delay(100, 0.0, Timing())


def test_ages_of_a_keypair_are_those_of_the_code() -> None:
    written = {what: value for what, value, _ in tables("When handshakes happen")[0]}
    expected = {
        "give up": give_up_at(0.0, None, Timing()),
        "rekey": rekey_at(0.0, Timing()),
        "fallback": fallback_rekey_at(0.0, Timing()),
        "reject": expires_at(0.0, Timing()),
    }
    del written["retry"]
    assert REKEY_COUNTER == 1 << 24
    assert written.pop("rekey by count") == "2^24 bursts"
    assert {what: float(value.removesuffix(" s")) for what, value in written.items()} == expected


@pytest.mark.parametrize(("name", "value"), [tuple(row) for row in tables("Constants")[0]])
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
    numbers = {type(message): encode(message)[1] for message in MESSAGES}
    assert written == {
        kind.__name__: (numbers[kind], [field.name for field in fields(kind)])
        for kind in get_args(Message)
    }
    assert [number for number, _ in written.values()] == sorted(numbers.values())
    expected = {}
    for kind in get_args(Message):
        names = [field.name for field in fields(kind)]
        expected[kind.__name__] = (_NUMBERS[kind], names)
    assert written == expected


def test_control_messages_are_encoded_under_the_numbers_that_are_written() -> None:
    numbers = {name: int(number) for number, name, _ in tables("Control messages")[0]}
    assert {type(message).__name__: encode(message)[1] for message in MESSAGES} == numbers
    for message in MESSAGES:
        assert decode_untrusted(encode(message)) == message


def test_signature_contexts_are_those_of_the_code() -> None:
    written = {plain(context) for context, _, _ in tables("Signatures")[0]}
    used = set()
    for path in DOCUMENT.parent.rglob("*.py"):
        used |= set(re.findall(r'^_?(?:[A-Z]+_)?CONTEXT: Final = "(\w+)"', path.read_text(), re.M))
    assert written == used


def codes_in(*functions: Callable[..., object]) -> set[str]:
    """The refusal codes that stand in the source of some functions."""
    source = "".join(map(getsource, functions))
    return set(re.findall(r'(?:RefusedError|Refusal)\([^")]*"([a-z]+(?:-[a-z]+)+)"', source))


def test_a_join_is_refused_with_the_codes_that_are_written_and_no_other() -> None:
    written = [plain(row[-1]) for row in tables("Decision")[0] if row[-1]]
    raised = codes_in(
        Steward.on_join_request,
        steward._not_stored,
        Registrar._certify,
        Registrar._check_free,
        Registrar._check_unlocked,
    )
    assert sorted(written) == sorted(raised)


def test_a_block_is_refused_with_the_codes_that_are_written_and_no_other() -> None:
    answers = [answer for _, answer in tables("Getting a block")[0]]
    written = [plain(answer) for answer in answers if answer.startswith("`")]
    raised = codes_in(Steward.on_block_request, steward._not_stored, Holdings.give)
    assert sorted(written) == sorted(raised)


def test_the_checks_of_packets_and_datagrams_name_drop_reasons_in_the_order_of_the_code() -> None:
    reasons = [str(reason) for reason in DropReason]
    sending, receiving = (
        [reason for row in tables(title)[0] for reason in re.findall(r"`(\w+)`", row[-1])]
        for title in ("Sending, in order", "Receiving, in order")
    )
    assert {*sending, *receiving} <= {*reasons}
    order = getsource(Outbound._destination) + getsource(Outbound._route)
    assert [name.lower() for name in re.findall(r"DropReason\.([A-Z_]+)", order)] == [
        reason for reason in sending if f"DropReason.{reason.upper()}" in order
    ]
    order = getsource(Inbound._admissible)
    assert [name.lower() for name in re.findall(r"return DropReason\.([A-Z_]+)", order)] == [
        *dict.fromkeys(r for r in receiving if f"return DropReason.{r.upper()}" in order)
    ]
    # What happens to handshakes, and to lanes, stands in chapters of their own.
    handshakes = {"overlay_source", "bad_handshake", "bad_certificate", "under_load"}
    elsewhere = {*handshakes, "rate_limited", "lane_lost"}
    assert {*sending, *receiving} | elsewhere == {*reasons}


def test_member_states_are_those_of_the_code() -> None:
    written = [state for state, _ in tables("What a node believes")[0]]
    assert written == [str(state) for state in NodeState]


def test_states_of_claims_are_those_of_the_code() -> None:
    written = {int(number): name for number, name in tables("Claims")[0]}
    assert written == {state.value: state.name.lower() for state in ClaimState}


def test_path_mtu_candidates_are_those_of_the_code() -> None:
    listed = re.search(r"Candidates are ([\d,\s]+), as far", section("Path MTU"))
    assert listed
    assert tuple(map(int, listed[1].split(","))) == (mtu.BASE, *mtu.CANDIDATES)


# -- examples ----------------------------------------------------------------------------------


def test_control_messages_have_the_bytes_that_are_written() -> None:
    encoded = {type(message).__name__: encode(message) for message in MESSAGES}
    written = tables("Test vectors")[0]
    assert len(written) == 11
    for label, hexes in written:
        name = re.match(r"\w+", label)
        assert name
        assert bytes.fromhex(plain(hexes)) == encoded[name[0]]


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
    for split in (k1, k2):
        assert split.hex() in section(title)
        assert transport_key(split, Suite.AES_256_GCM).hex() in section(title)
    keypair, _ = attempt.finish_untrusted(
        Response.decode_untrusted(response), node=node, now=0.0, expires_at=180.0
    )
    first = Header(header.TYPE_DATA, receiver=0x05060708, counter=keypair.next_counter())
    sealed = bytearray(len(b"hello") + TAG_SIZE)
    keypair.seal_into(first.counter, b"hello", first.associated_data(), sealed)
    assert first.encode() + sealed == code(title, "First datagram")
    assert len(first.encode()) == HEADER_SIZE
