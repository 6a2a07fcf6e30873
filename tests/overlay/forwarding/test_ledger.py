from __future__ import annotations

import json

import pytest

from overlay.drops import DropReason
from overlay.forwarding.ledger import Ledger
from overlay.views import LedgerView


def test_a_fresh_ledger_balances_at_zero():
    ledger = Ledger()
    ledger.check_invariants()
    assert ledger.view() == LedgerView(0, 0, 0, {})


@pytest.mark.parametrize("read", ["tun_in", "datagrams_in", "opened_in"])
@pytest.mark.parametrize(
    "fate", ["sent_out", "consumed_out", "tun_out", "queued_packets", "queued_segments"]
)
def test_one_thing_read_balances_with_one_fate(read: str, fate: str):
    ledger = Ledger()
    setattr(ledger, read, 1)
    with pytest.raises(AssertionError):
        ledger.check_invariants()
    setattr(ledger, fate, 1)
    ledger.check_invariants()


def test_drops_add_up_by_reason():
    ledger = Ledger()
    ledger.tun_in = 6
    ledger.drop(DropReason.NO_ROUTE)
    ledger.drop(DropReason.NO_ROUTE, 4)
    ledger.drop(DropReason.MALFORMED)
    ledger.check_invariants()
    assert ledger.view().drops == {"malformed": 1, "no_route": 5}


def test_a_queue_below_zero_is_noticed():
    ledger = Ledger()
    ledger.queued_packets, ledger.sent_out = -1, 1
    with pytest.raises(AssertionError):
        ledger.check_invariants()


def test_a_view_is_a_copy_that_json_understands():
    ledger = Ledger()
    ledger.tun_in = 1
    ledger.drop(DropReason.NO_ROUTE)
    view = ledger.view()
    ledger.tun_in = 2
    ledger.drop(DropReason.NO_ROUTE)
    assert view == LedgerView(received=1, sent=0, queued=0, drops={"no_route": 1})
    assert json.dumps(dict(view.drops)) == '{"no_route": 1}'
