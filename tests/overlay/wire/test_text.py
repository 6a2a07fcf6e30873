"""Tests of overlay.wire.text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import ConfigError
from overlay.wire.text import LineKind

KIND = LineKind("muslin-note", "note", "muslin note", 200)


@given(st.binary(max_size=120))
def test_what_is_written_is_read(packed: bytes) -> None:
    line = KIND.write(packed)
    assert line.startswith("muslin-note1-")
    assert KIND.read_untrusted(f"  {line}\n") == packed


def test_the_line_is_the_documented_one() -> None:
    assert KIND.write(b"muslin") == "muslin-note1-bXVzbGluga8Bww"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "this is not a note: copy the line that muslin note prints, muslin-note1-..."),
        ("muslin1-bXVzbGlu", "this is not a note"),
        ("muslin-note1-" + "A" * 200, "this is not a note"),
        ("muslin-note2-bXVzbGlu", "this note is of version 2, only 1 is known: upgrade"),
        ("muslin-note1-", "the note is damaged: copy the whole line again"),
        ("muslin-note1-A", "the note is damaged"),
        ("muslin-note1-bXVz bGlu", "the note is damaged"),
    ],
)
def test_anything_else_is_refused_with_what_to_do(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KIND.read_untrusted(text)
    assert str(caught.value).startswith(says)


@given(st.binary(max_size=60), st.data())
def test_no_changed_character_goes_unnoticed(packed: bytes, data: st.DataObject) -> None:
    line = KIND.write(packed)
    at = data.draw(st.integers(len(KIND.prefix), len(line) - 1))
    other = data.draw(st.sampled_from("ABab01_-").filter(lambda one: one != line[at]))
    with pytest.raises(ConfigError) as caught:
        KIND.read_untrusted(line[:at] + other + line[at + 1 :])
    assert line[len(KIND.prefix) :][:9] not in str(caught.value)
