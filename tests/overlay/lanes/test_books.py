"""The counters of all lanes: sums, and what is left of lanes that are gone."""

from __future__ import annotations

from overlay.drops import DropReason
from overlay.forwarding.ledger import Ledger
from overlay.lanes.books import Books
from overlay.lanes.messages import Stats, Traffic
from overlay.types import NodeId
from overlay.views import LedgerView

NODE, OTHER = NodeId(b"n" * 32), NodeId(b"o" * 32)


def own() -> Ledger:
    ledger = Ledger()
    ledger.tun_in, ledger.sent_out = 5, 4
    ledger.drop(DropReason.NO_ROUTE)
    return ledger


def test_without_lanes_it_is_the_daemons_own_book() -> None:
    assert Books().view(own()) == own().view()


def test_totals_replace_totals_and_lanes_add_up() -> None:
    books = Books()
    books.on_stats(1, Stats(10, 8, 1, [("no_route", 1)], 0.1))
    books.on_stats(1, Stats(20, 16, 2, [("no_route", 1), ("bad_tag", 1)], 0.2))
    books.on_stats(2, Stats(1, 1, 0, [], 0.1))
    assert books.view(own()) == LedgerView(26, 21, 2, {"bad_tag": 1, "no_route": 2})


def test_what_a_lane_held_when_it_ended_is_lost_and_the_rest_stays() -> None:
    books = Books()
    books.on_stats(1, Stats(20, 16, 3, [("bad_tag", 1)], 0.2))
    books.close(1)
    books.close(1)
    view = books.view(own())
    assert view == LedgerView(25, 20, 0, {"bad_tag": 1, "lane_lost": 3, "no_route": 1})
    books.on_stats(1, Stats(2, 2, 0, [], 0.0))
    view = books.view(own())
    assert view.received == view.sent + view.queued + sum(view.drops.values())


def test_bytes_of_a_peer_are_those_of_all_lanes_past_ones_too() -> None:
    books = Books()
    books.on_traffic(1, Traffic([(NODE, 10, 1, None, [("no_session", 2)]), (OTHER, 5, 5, 1.0, [])]))
    books.on_traffic(1, Traffic([(NODE, 20, 2, None, [("no_session", 3)])]))
    books.on_traffic(2, Traffic([(NODE, 100, 50, None, [("no_session", 1)])]))
    books.close(1)
    books.on_traffic(1, Traffic([(NODE, 1, 1, None, [])]))
    peer = books.peer(NODE)
    assert (peer.tx_bytes, peer.rx_bytes, peer.drops) == (121, 53, {"no_session": 4})
    books.forget(NODE)
    assert books.peer(NODE).tx_bytes == 0
    assert books.peer(OTHER).rx_bytes == 5
