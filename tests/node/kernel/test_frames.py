from __future__ import annotations

import errno
import struct

from hypothesis import given
from hypothesis import strategies as st

from node.kernel.frames import HEADER, attribute, attributes, error_of, frame, split

ASKED = st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 2**32 - 1))


@given(st.lists(st.tuples(ASKED, st.binary(max_size=40))))
def test_messages_one_behind_the_other_are_told_apart(messages):
    said = b"".join(frame(*asked, body) for asked, body in messages)
    found = [(kind, flags, number, body) for kind, flags, number, body in split(said)]
    assert found == [(kind, flags | 1, number, body) for (kind, flags, number), body in messages]


def test_a_message_is_padded_and_its_length_is_without_that() -> None:
    said = frame(16, 0, 7, b"abc")
    assert (len(said), HEADER.unpack_from(said)[0]) == (20, 19)


@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=20)))
def test_attributes_are_read_as_they_were_written(wanted):
    said = b"head" + b"".join(attribute(kind, value) for kind, value in wanted.items())
    assert attributes(said, 4) == wanted


def test_marks_of_a_type_are_no_part_of_it_and_a_damaged_length_ends_the_list() -> None:
    nested = attribute(4 | 0x8000, b"AB")
    assert attributes(nested, 0) == {4: b"AB"}
    assert attributes(nested + struct.pack("=HH", 3, 1) + nested, 0) == {4: b"AB"}


def test_the_code_of_an_answer_is_an_errno() -> None:
    assert error_of(struct.pack("=i", -errno.EEXIST) + bytes(16)) == errno.EEXIST
    assert error_of(bytes(4)) == 0
    assert error_of(b"") == 0
