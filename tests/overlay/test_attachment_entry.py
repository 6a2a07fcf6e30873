"""Tests of overlay.attachment_entry: an attachment is read back as it was stored, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given

from overlay.attachment import MAX_LABELS, MAX_PORTS, Attachment
from overlay.attachment_entry import attachment_values, read_attachment
from overlay.errors import WireError
from overlay.wire.packing import Fields, pack, unpack_untrusted
from tests.support.attachments import ATTACHMENTS

GOOD = ["c", "eth0", "pods", [["pod", "web"]], [], [8, 8], [["tcp", 8080, 80, ""]], False]


@given(ATTACHMENTS)
def test_what_is_stored_is_read_back(said: Attachment) -> None:
    stored = pack(attachment_values(said))
    assert read_attachment(Fields(unpack_untrusted(stored, len(stored)), "attachment")) == said


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, "c" * 129),
        (1, "e" * 16),
        (2, "new\nline"),
        (3, [["pod"]]),
        (3, [["pod", "w" * 257]]),
        (3, [[str(number), ""] for number in range(MAX_LABELS + 1)]),
        (4, [7, 8]),
        (5, [8]),
        (6, [["icmp", 1, 1, ""]]),
        (6, [["tcp", 0, 1, ""]]),
        (6, [["tcp", 1, 65536, ""]]),
        (6, [["tcp", 1, 1, "0" * 65]]),
        (6, [["tcp", 1 + number, 1, ""] for number in range(MAX_PORTS + 1)]),
        (7, 1),
    ],
)
def test_what_is_out_of_bounds_is_refused(at: int, value: object) -> None:
    read_attachment(Fields(GOOD, "attachment"))
    with pytest.raises(WireError):
        read_attachment(Fields([*GOOD[:at], value, *GOOD[at + 1 :]], "attachment"))
