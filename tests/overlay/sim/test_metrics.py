"""Tests of counters, rates and trackers."""

from __future__ import annotations

import pytest

from overlay.sim.metrics import Rates, Tracker, Traffic, quantile


def test_rates_are_per_node_and_second_and_name_the_busiest():
    rates, one, two = Rates(), Traffic(), Traffic()
    one.sent(72, 0, 28)
    rates.sample([("one", one), ("two", two)], 1.0)
    one.sent(172, 0, 28)
    two.sent(400, 100, 28)
    second = rates.sample([("one", one), ("two", two)], 2.0)
    assert (second.nodes, second.bytes, second.messages) == (2, (200 + 512) / 2, 2.5)
    assert second.busiest == 512
    assert rates.peak() == second


def test_the_steady_rate_is_that_of_the_median_quiet_second():
    rates, node = Rates(), Traffic()
    for at, size in enumerate((9000, 100, 300, 200, 5000), start=1):
        node.sent(size - 28, 0, 28)
        rates.sample([("node", node)], float(at))
    steady = rates.steady([(0.5, 0.9), (4.5, 4.6)])
    assert steady is not None
    assert steady.bytes == 200
    assert rates.steady([(0.0, 99.0)]) is None


class Counted:
    """A node that knows some things, and counts how often it is asked."""

    def __init__(self) -> None:
        self.known: set[int] = set()
        self.asked = 0

    def knows(self, thing: int) -> bool:
        self.asked += 1
        return thing in self.known


def test_a_tracker_notes_when_each_node_has_met_all_goals():
    nodes = {name: Counted() for name in ("a", "b", "c")}
    tracker: Tracker[Counted] = Tracker("event", 9.0)
    tracker.goals += [lambda node: node.knows(1), lambda node: node.knows(2)]
    assert tracker.settled  # nobody is to show anything
    tracker.open(nodes, 10.0)
    tracker.look(nodes, 10.0)
    assert not tracker.settled
    nodes["a"].known |= {1, 2}
    nodes["b"].known |= {2}
    tracker.look(nodes, 10.5)
    assert tracker.missing == ["b", "c"]
    nodes["b"].known |= {1}
    tracker.look(nodes, 12.0)
    del nodes["c"]  # it died: nobody waits for it
    tracker.look(nodes, 13.0)
    assert tracker.settled
    assert tracker.times == [0.5, 2.0]


def test_who_is_expected_is_asked_from_when_it_comes_up_and_waited_for_until_then():
    nodes = {"a": Counted()}
    tracker: Tracker[Counted] = Tracker("event", 0.0)
    tracker.goals.append(lambda node: node.knows(1))
    tracker.expect(["b", "c", "d"])
    tracker.look(nodes, 1.0)
    assert nodes["a"].asked == 0  # not open yet: goals may be added
    tracker.open(["a"], 1.0)
    nodes["a"].known |= {1}
    tracker.look(nodes, 1.5)
    assert tracker.missing == ["b", "c", "d"]
    tracker.dismiss("c")
    nodes["b"] = Counted()
    tracker.look(nodes, 2.0)
    assert tracker.missing == ["b", "d"]
    nodes["b"].known |= {1}
    del nodes["a"]
    tracker.look(nodes, 3.0)
    assert tracker.missing == ["d"]
    assert tracker.times == [0.5, 2.0]


def test_looking_costs_one_question_per_node_however_many_goals_there_are():
    node = Counted()
    tracker: Tracker[Counted] = Tracker("event", 0.0)
    tracker.goals += [lambda node, n=n: node.knows(n) for n in range(1000)]
    tracker.open(["node"], 0.0)
    for look in range(100):
        tracker.look({"node": node}, float(look))
    assert node.asked == 100
    node.known |= set(range(1000))
    tracker.look({"node": node}, 100.0)
    assert node.asked == 1100
    assert tracker.times == [100.0]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_quantiles_are_by_nearest_rank(share, expected):
    assert quantile(list(range(1, 101)), share) == expected
