"""The bytes of a journal: what is written is read, and nothing else is."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.transactions import (
    BASE,
    BASE_PART,
    RECORD_SIZE,
    TRANSACTION,
    Chain,
    DamagedError,
    NewerError,
    apply,
    base_records,
    read_journal,
)

SALT = bytes(range(100, 116))

KEYS = st.sampled_from([b"boot", b"pods/web", b"items/k", b""])
VALUES = st.none() | st.binary(max_size=30)
CHANGES = st.lists(st.tuples(KEYS, VALUES), max_size=4)
HISTORIES = st.lists(CHANGES, min_size=1, max_size=6)


class Written:
    """A file after a history: its bytes, and where each transaction ends with which entries."""

    def __init__(self, history, base=None) -> None:
        entries = dict(base or {b"schema": b"1"})
        chain = Chain(SALT)
        self.content = chain.header()
        self.begins = []
        for record, behind in base_records(entries, chain):
            self.begins.append(len(self.content))
            self.content += record
            chain = behind
        self.base_end = len(self.content)
        self.states = {self.base_end: dict(entries)}
        for changes in history:
            self.begins.append(len(self.content))
            record, chain = chain.record(TRANSACTION, changes)
            apply(entries, changes)
            self.content += record
            self.states[len(self.content)] = dict(entries)
        self.entries = entries
        self.chain = chain

    def last_before(self, size: int) -> dict[bytes, bytes]:
        """The entries after the last transaction that ends within `size` bytes."""
        return self.states[max(end for end in self.states if end <= size)]


HISTORY = [[(b"boot", b"2")], [(b"pods/web", b"1"), (b"boot", b"3")], [(b"pods/web", None)]]


def test_the_bytes_are_these() -> None:
    written = Written([[(b"boot", b"2"), (b"left", None)]], {b"schema": b"1"})
    assert written.content.startswith(b"muslin state 1 6465666768696a6b6c6d6e6f70717273\n")
    base, record = (written.content[at:] for at in written.begins)
    assert base.hex().startswith("646566020000000c0000000000000001" + "00" * 16)
    assert base[RECORD_SIZE - 16 : RECORD_SIZE] == record[16:32]
    assert record.hex().startswith("64656603000000110000000000000002")
    assert record[RECORD_SIZE:].hex() == "94c404626f6f74c40132c4046c656674c0"


@given(HISTORIES)
@settings(max_examples=100)
def test_what_is_written_is_read_back(history) -> None:
    written = Written(history)
    contents = read_journal(written.content)
    assert contents.entries == written.entries
    assert (contents.chain, contents.length) == (written.chain, len(written.content))
    assert contents.torn == ""


@given(HISTORIES, st.data())
@settings(max_examples=200)
def test_after_a_crash_at_any_byte_the_state_is_the_one_before_or_after(history, data) -> None:
    """Of the last transaction any part may have reached the disk, and nothing of it or zeros."""
    written = Written(history)
    last = written.begins[-1]
    size = data.draw(st.integers(last, len(written.content)))
    filler = data.draw(st.sampled_from([b"", bytes(len(written.content) - size)]))
    content = written.content[:size] + filler
    if content == written.content:
        size, filler = len(content), b""
    contents = read_journal(content)
    assert contents.entries == written.last_before(size)
    assert contents.length in written.states
    assert bool(contents.torn) == (contents.length != size + len(filler))


@given(HISTORIES, st.data())
@settings(max_examples=100)
def test_a_file_cut_anywhere_is_some_state_it_had_or_is_refused(history, data) -> None:
    written = Written(history)
    size = data.draw(st.integers(0, len(written.content)))
    try:
        contents = read_journal(written.content[:size])
    except DamagedError:
        assert size < written.base_end
    else:
        assert contents.entries == written.last_before(size)


@given(HISTORIES, st.data())
@settings(max_examples=300)
def test_any_flipped_bit_is_refused_or_is_in_the_end_that_is_cut_off(history, data) -> None:
    written = Written(history)
    content = bytearray(written.content)
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        contents = read_journal(bytes(content))
    except (DamagedError, NewerError):
        return
    assert at >= written.begins[-1]
    assert contents.entries == written.last_before(written.begins[-1])
    assert contents.torn


def test_a_gap_a_repetition_and_another_order_are_refused() -> None:
    written = Written(HISTORY)
    ends = [*written.begins, len(written.content)]
    head = written.content[: ends[0]]
    base, one, two, three = (written.content[a:b] for a, b in pairwise(ends))
    for order in (
        [one, three],
        [two, three],
        [one, one, two],
        [two, one],
        [one, two, three, three],
    ):
        with pytest.raises(DamagedError, match="where record") as caught:
            read_journal(b"".join([head, base, *order]))
        assert caught.value.offset >= written.begins[1]


def test_a_record_of_another_past_is_refused() -> None:
    written, other = Written(HISTORY), Written([[(b"boot", b"9")], *HISTORY[1:]])
    mixed = written.content[: written.begins[2]] + other.content[other.begins[2] :]
    with pytest.raises(DamagedError, match="does not follow the one before it"):
        read_journal(mixed)


def test_damage_is_found_where_it_is() -> None:
    written = Written(HISTORY)
    content = bytearray(written.content)
    content[written.begins[2] + RECORD_SIZE + 2] ^= 1
    with pytest.raises(DamagedError, match="record 3: its checksum does not match") as caught:
        read_journal(bytes(content))
    assert caught.value.offset == written.begins[2]


def test_a_length_that_was_made_larger_is_not_taken_for_a_torn_end() -> None:
    written = Written(HISTORY)
    content = bytearray(written.content)
    content[written.begins[1] + 4] = 0xFF
    with pytest.raises(DamagedError, match="record 2: it is cut short"):
        read_journal(bytes(content))


def test_the_base_is_in_parts_and_all_of_it_must_be_there() -> None:
    base = {b"items/%d" % number: bytes(BASE_PART // 3) for number in range(10)}
    written = Written([], base)
    assert len(written.begins) == 4
    assert read_journal(written.content).entries == base
    for begin in written.begins[1:]:
        with pytest.raises(DamagedError, match="ends before its base"):
            read_journal(written.content[:begin])
        with pytest.raises(DamagedError, match="cut short"):
            read_journal(written.content[: begin + 60])
    with pytest.raises(DamagedError, match="cut short"):
        read_journal(written.content[:-1])


def test_a_base_inside_a_journal_is_refused() -> None:
    written = Written(HISTORY)
    record, _ = written.chain.record(BASE, ())
    with pytest.raises(DamagedError, match="record 5 is of kind 1"):
        read_journal(written.content + record)


@pytest.mark.parametrize("payload", [[(b"key", 1)], [(1, b"value")]])
def test_a_record_that_says_nonsense_is_refused(payload) -> None:
    written = Written(HISTORY)
    record, _ = written.chain.record(TRANSACTION, payload)
    with pytest.raises(DamagedError, match="transaction: "):
        read_journal(written.content + record)


@pytest.mark.parametrize(
    ("header", "error", "says"),
    [
        (b"", DamagedError, "no header"),
        (b"garbage\n", DamagedError, "no header"),
        (b"muslin cluster 1 " + b"0" * 32 + b"\n", DamagedError, "no header"),
        (b"muslin state x " + b"0" * 32 + b"\n", DamagedError, "no format version"),
        (b"muslin state 0 " + b"0" * 32 + b"\n", DamagedError, "no format version"),
        (b"muslin state 2 whatever\n", NewerError, "newer Muslin"),
        (b"muslin state 1 " + b"0" * 30 + b"\n", DamagedError, "not one"),
        (b"muslin state 1 " + b"A" * 32 + b"\n", DamagedError, "not one"),
        (b"muslin state 1 " + b"x" * 32 + b"\n", DamagedError, "not one"),
        (b"muslin state 1 " + b"0" * 32 + b"\n", DamagedError, "ends before its base"),
    ],
)
def test_a_header_that_is_none_is_refused(header, error, says) -> None:
    with pytest.raises(error, match=says):
        read_journal(header)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_journal_or_are_refused(content: bytes) -> None:
    for bytes_ in (content, Chain(SALT).header() + content):
        with pytest.raises(DamagedError):
            read_journal(bytes_)
