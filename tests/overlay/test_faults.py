"""Tests of overlay.faults: the list is complete and its codes can be shown and sent."""

from __future__ import annotations

import re

from overlay.faults import FAULTS, WRONGS, Fault
from overlay.wire.packing import U8
from tests.overlay.test_protocol_document import tables


def test_every_fault_has_a_dashed_code_and_a_clause_and_fits_its_field() -> None:
    assert list(WRONGS) == list(Fault) == list(FAULTS)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)+", fault) for fault in Fault)
    assert all(clause.startswith("it ") and clause.isprintable() for clause in WRONGS.values())
    assert len(FAULTS) <= U8


def test_the_protocol_lists_all_faults_with_their_numbers() -> None:
    (written,) = tables("Complaints")
    assert written == [[str(number), f"`{fault}`"] for number, fault in enumerate(FAULTS)]
