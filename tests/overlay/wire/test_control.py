"""Control messages."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import CapacityError, WireError
from overlay.types import NodeId
from overlay.wire.certificate import CERTIFICATE_MAX, NAME_MAX
from overlay.wire.claims import Claim, ClaimState
from overlay.wire.cluster import CLUSTER_MAX
from overlay.wire.control import decode_untrusted, encode
from overlay.wire.items import BODY_LIMIT, KEY_LIMIT, Item
from overlay.wire.messages import (
    BENCH_LONGEST,
    CLAIMS_LIMIT,
    CODE_LIMIT,
    FACTS_LIMIT,
    ITEMS_LIMIT,
    LANES_LIMIT,
    MESSAGE_LIMIT,
    TEXT_LIMIT,
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
from overlay.wire.packing import U16, U32, U64, pack, unpack_untrusted
from tests.support.pcap import all_frames

ITEM = Item(b"b\0\0\0\1", 3, b"xyz")
ITEM_HEX = "93c405620000000103c40378797a"
CLAIM = Claim(NodeId(b"n" * 32), 5, 1, ClaimState.SUSPECT, True, b"p" * 64)
CLAIM_HEX = "96c420" + "6e" * 32 + "050101c3c440" + "70" * 64

GOLDEN = [
    (Probe(7), "93010790"),
    (ProbeReply(2**40), "9302cf000001000000000090"),
    (Probe(7, (CLAIM,)), "93010791" + CLAIM_HEX),
    (PathProbe(1400, b"\0\0"), "9303cd0578c4020000"),
    (PathProbeReply(1400), "9204cd0578"),
    (Summary(b"rootroot", 12, b"clmsroot"), "9505c408726f6f74726f6f740cc408636c6d73726f6f7490"),
    (Buckets(bytes(2048)), "9206c50800" + "00" * 2048),
    (Ids(b"\1\2", b"identity"), "9307c4020102c4086964656e74697479"),
    (Delta((ITEM,)), "920891" + ITEM_HEX),
    (Have(b"identity", confirm=True), "9418c4086964656e74697479c390"),
    (Want(b"identity"), "9219c4086964656e74697479"),
    (Want(b""), "9219c400"),
    (Claims((CLAIM,), ask=True), "931a91" + CLAIM_HEX + "c3"),
    (IndirectProbe(7, NodeId(b"n" * 32)), "941b07c420" + "6e" * 32 + "90"),
    (IndirectReply(7, reached=True), "941c07c390"),
    (RenewRequest(9), "921d09"),
    (RenewGrant(9, b"cert"), "931e09c40463657274"),
    (FactsRequest(9), "921f09"),
    (Facts(9, "{}"), "932009a27b7d"),
    (BlockRequest(9), "920909"),
    (Refusal(9, "no-block", "all in use"), "940a09a86e6f2d626c6f636baa616c6c20696e20757365"),
    (
        JoinRequest(1, "vm2", b"s" * 32, b"g" * 64),
        "950b01a3766d32c420" + "73" * 32 + "c440" + "67" * 64,
    ),
    (
        JoinGrant(1, b"cert", b"cluster", b"p" * 32, (ITEM,)),
        "960c01c40463657274c407636c7573746572c420" + "70" * 32 + "91" + ITEM_HEX,
    ),
    (Goodbye(), "910d"),
    (Trial(3, 7, b"\0\0"), "940e0307c4020000"),
    (TrialReply(3, 5, coalesced=True), "940f0305c3"),
    (ReadSingly(), "9110"),
    (SegmentLoss(300), "9211cd012c"),
    (
        BenchRequest(5, bytes([10, 244, 2, 1]), bytes([192, 0, 2, 2]), 30),
        "951505c4040af40201c404c00002021e",
    ),
    (BenchReady(5, b"t" * 32, 40000, 40001), "951605c420" + "74" * 32 + "cd9c40cd9c41"),
    (BenchDone(5), "921705"),
    (Lanes(3, 7, 9), "9412030709"),
    (LaneProbe(2, 9), "93130209"),
    (LaneProbeReply(2, 9), "93140209"),
]
"""One line per message, as in the protocol document."""


def exactly(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


def printable(limit: int) -> st.SearchStrategy[str]:
    return st.text(max_size=limit).filter(str.isprintable)


NUMBERS = st.integers(0, U64)
KEYS = st.binary(min_size=1, max_size=KEY_LIMIT)
ITEMS = st.lists(st.builds(Item, KEYS, NUMBERS, st.binary(max_size=50)), max_size=5).map(tuple)
IDS = st.lists(exactly(8), max_size=5).map(b"".join)
NODES = exactly(32).map(NodeId)
STARTS = st.integers(0, U32)
STATES = st.sampled_from(ClaimState)
CLAIMS = st.lists(
    st.builds(Claim, NODES, STARTS, st.just(0), STATES, st.booleans(), st.just(b""))
    | st.builds(Claim, NODES, STARTS, st.integers(1, U32), STATES, st.booleans(), exactly(64)),
    max_size=5,
).map(tuple)
MESSAGES = st.one_of(
    st.builds(Probe, NUMBERS, CLAIMS),
    st.builds(ProbeReply, NUMBERS, CLAIMS),
    st.builds(PathProbe, st.integers(0, U16), st.binary(max_size=200)),
    st.builds(PathProbeReply, st.integers(0, U16)),
    st.builds(Summary, exactly(8), st.integers(0, U32), exactly(8), CLAIMS),
    st.builds(Buckets, exactly(2048)),
    st.builds(Ids, st.binary(max_size=256), IDS),
    st.builds(Have, IDS, st.booleans(), CLAIMS),
    st.builds(Want, IDS),
    st.builds(Claims, CLAIMS, st.booleans()),
    st.builds(IndirectProbe, NUMBERS, NODES, CLAIMS),
    st.builds(IndirectReply, NUMBERS, st.booleans(), CLAIMS),
    st.builds(RenewRequest, NUMBERS),
    st.builds(RenewGrant, NUMBERS, st.binary(max_size=CERTIFICATE_MAX)),
    st.builds(FactsRequest, NUMBERS),
    st.builds(Facts, NUMBERS, printable(FACTS_LIMIT)),
    st.builds(Delta, ITEMS),
    st.builds(BlockRequest, NUMBERS),
    st.builds(Refusal, NUMBERS, printable(CODE_LIMIT), printable(TEXT_LIMIT)),
    st.builds(JoinRequest, NUMBERS, printable(NAME_MAX), exactly(32), exactly(64)),
    st.builds(
        JoinGrant, NUMBERS, st.binary(max_size=99), st.binary(max_size=99), exactly(32), ITEMS
    ),
    st.just(Goodbye()),
    st.builds(Trial, st.integers(0, U32), st.integers(0, U16), st.binary(max_size=200)),
    st.builds(TrialReply, st.integers(0, U32), st.integers(0, U16), coalesced=st.booleans()),
    st.just(ReadSingly()),
    st.builds(SegmentLoss, st.integers(0, U32)),
    st.builds(
        BenchRequest,
        NUMBERS,
        exactly(4) | exactly(16),
        exactly(0) | exactly(4) | exactly(16),
        st.integers(1, BENCH_LONGEST),
    ),
    st.builds(BenchReady, NUMBERS, exactly(32), st.integers(0, U16), st.integers(0, U16)),
    st.builds(BenchDone, NUMBERS),
    st.builds(Lanes, st.integers(1, LANES_LIMIT), st.integers(0, U16), NUMBERS),
    st.builds(LaneProbe, st.integers(0, LANES_LIMIT - 1), NUMBERS),
    st.builds(LaneProbeReply, st.integers(0, LANES_LIMIT - 1), NUMBERS),
)


@pytest.mark.parametrize(("message", "packed"), GOLDEN, ids=lambda v: type(v).__name__)
def test_message_is_these_bytes(message, packed):
    assert encode(message).hex() == packed
    assert decode_untrusted(bytes.fromhex(packed)) == message


def test_every_message_has_golden_bytes():
    assert {type(message) for message, _ in GOLDEN} == set(get_args(Message))


def test_numbers_are_given_out_without_a_gap():
    numbers = {unpack_untrusted(encode(message), 9999)[0] for message, _ in GOLDEN}
    assert numbers == set(range(1, 33))


@given(MESSAGES)
def test_messages_survive_the_wire(message):
    decoded = decode_untrusted(memoryview(encode(message)))
    assert decoded == message
    assert type(decoded) is type(message)


@given(MESSAGES)
def test_later_fields_are_ignored(message):
    values = unpack_untrusted(encode(message), MESSAGE_LIMIT)
    assert decode_untrusted(pack([*values, "new", 1])) == message


@given(MESSAGES, st.data())
def test_missing_fields_are_refused(message, data):
    values = unpack_untrusted(encode(message), MESSAGE_LIMIT)
    with pytest.raises(WireError):
        decode_untrusted(pack(values[: data.draw(st.integers(0, len(values) - 1))]))


@given(MESSAGES, st.data())
def test_field_of_a_wrong_type_is_refused(message, data):
    values = unpack_untrusted(encode(message), MESSAGE_LIMIT)
    place = data.draw(st.integers(0, len(values) - 1))
    values[place] = {}  # no field of any message is a map
    with pytest.raises(WireError):
        decode_untrusted(pack(values))


@pytest.mark.parametrize(
    "values",
    [
        [0],
        [14],
        [True, 7],
        ["1", 7],
        [1, True],
        [1, -1],
        [3, 65536, b""],
        [5, b"1234567", 0, bytes(8), []],
        [5, b"12345678", 2**32, bytes(8), []],
        [5, b"12345678", 0, bytes(7), []],
        [6, bytes(2047)],
        [7, bytes(257), b""],
        [7, b"", b"seven b"],
        [24, b"seven b", True, []],
        [25, bytes(8 * 4097)],
        [26, [[bytes(32), 1, 0, 0, True, b""]] * (CLAIMS_LIMIT + 1), True],
        [26, [[bytes(32), 1, 0, 3, True, b""]], True],
        [26, [[bytes(32), 1, 1, 0, True, b""]], True],
        [26, [[bytes(32), 1, 0, 0, True, bytes(64)]], True],
        [26, [[bytes(31), 1, 0, 0, True, b""]], True],
        [27, 1, bytes(31), []],
        [8, [[b"k", 1, "body"]]],
        [8, b"items"],
        [10, 1, "c" * (CODE_LIMIT + 1), ""],
        [10, 1, "code", "t" * (TEXT_LIMIT + 1)],
        [10, 1, "code", "two\nlines"],
        [11, 1, "n" * (NAME_MAX + 1), bytes(32), bytes(64)],
        [11, 1, "name", bytes(31), bytes(64)],
        [11, 1, "name", bytes(32), bytes(65)],
        [12, 1, bytes(CERTIFICATE_MAX + 1), b"", bytes(32), []],
        [12, 1, b"", bytes(CLUSTER_MAX + 1), bytes(32), []],
        [12, 1, b"", b"", bytes(33), []],
        [12, 1, b"", b"", bytes(32), [[b"k", 1]]],
        [21, 1, bytes(5), b"", 30],
        [21, 1, b"", b"", 30],
        [21, 1, bytes(4), bytes(17), 30],
        [21, 1, bytes(4), b"", 0],
        [21, 1, bytes(4), b"", BENCH_LONGEST + 1],
        [22, 1, bytes(31), 1, 1],
        [22, 1, bytes(32), 65536, 1],
    ],
)
def test_malformed_message_is_refused(values):
    with pytest.raises(WireError):
        decode_untrusted(pack(values))


def test_largest_item_fits_a_message():
    delta = Delta((Item(bytes(KEY_LIMIT), U64, bytes(BODY_LIMIT)),))
    assert decode_untrusted(encode(delta)) == delta


def test_the_smallest_items_fit_the_limit_of_items_and_the_largest_claims_a_message():
    smallest = Item(b"k", 1, b"")
    assert MESSAGE_LIMIT // (len(pack(smallest)) + 8) <= ITEMS_LIMIT
    claims = Claims((CLAIM._replace(boot=U32, incarnation=U32),) * CLAIMS_LIMIT)
    assert decode_untrusted(encode(claims)) == claims


def test_message_over_the_limit_is_neither_sent_nor_read():
    probe = PathProbe(0, bytes(MESSAGE_LIMIT))
    with pytest.raises(CapacityError, match="PathProbe") as caught:
        encode(probe)
    assert caught.value.limit == "control_message"
    with pytest.raises(WireError, match="over the limit"):
        decode_untrusted(pack([3, 0, probe.padding]))


def test_secret_and_padding_stay_out_of_repr():
    assert "ppp" not in repr(JoinGrant(1, b"", b"", b"p" * 32, ()))
    assert "padding" not in repr(PathProbe(1, b"x"))
    assert "ttt" not in repr(BenchReady(1, b"t" * 32, 1, 1))


@given(st.binary(max_size=100) | st.lists(st.integers(0, 14) | st.binary(), max_size=4).map(pack))
def test_random_bytes_are_decoded_or_refused(data):
    with suppress(WireError):
        decode_untrusted(data)


def test_captures_are_decoded_or_refused(vectors: Path):
    for frame in all_frames(vectors / "pcaps"):
        with suppress(WireError):
            decode_untrusted(frame)
