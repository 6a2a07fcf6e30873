from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.kernel.contest import LIMIT, PAUSE, WINDOW, Contest


def test_a_few_repairs_are_no_fight() -> None:
    contest = Contest()
    for second in range(LIMIT - 1):
        contest.on_repaired(["add route"], float(second))
    assert (contest.problem(LIMIT), contest.pause(LIMIT)) == (None, 0.0)


def test_many_of_one_thing_are_and_it_is_named() -> None:
    contest = Contest()
    for second in range(LIMIT):
        contest.on_repaired(["add route 10.244.0.0/16 dev muslin0"], float(second))
    problem = contest.problem(LIMIT)
    assert problem is not None
    assert problem.code == "kernel-contested"
    assert "10.244.0.0/16" in problem.why
    assert contest.pause(LIMIT) == PAUSE


def test_many_of_different_things_at_once_are_not() -> None:
    contest = Contest()
    contest.on_repaired([f"add route {number}" for number in range(100)], 1.0)
    assert contest.problem(1.0) is None


def test_only_a_few_are_named_and_the_rest_counted() -> None:
    contest = Contest()
    for second in range(LIMIT):
        contest.on_repaired([f"thing {number}" for number in range(9)], float(second))
    problem = contest.problem(float(LIMIT))
    assert problem is not None
    assert problem.why.endswith("thing 0, thing 1, thing 2 and 6 more")


def test_it_is_over_when_nothing_was_repaired_for_a_while() -> None:
    contest = Contest()
    for second in range(LIMIT):
        contest.on_repaired(["add route"], float(second))
    last = LIMIT - 1.0
    assert contest.contested(last + WINDOW)
    assert not contest.contested(last + WINDOW + 1)
    assert not contest._times, "nothing is remembered for ever"


@given(st.lists(st.floats(0.1, 200.0), max_size=30))
def test_what_is_repaired_rarely_is_never_contested(gaps: list[float]) -> None:
    contest, now = Contest(), 0.0
    for gap in gaps:
        now += max(gap, WINDOW / (LIMIT - 1) + 0.1)
        contest.on_repaired(["set net/x to 1"], now)
        assert not contest.contested(now)
