"""Tests of overlay.routing.trial, on a simulated path in virtual time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.config import Timing
from overlay.routing.trial import ROUNDS, SERIES, Step, Trial, Verdict, Way

TIMING = Timing()
RETRY = TIMING.path_probe_retry
BIG = (Way.SEGMENTED, Way.SINGLY)
RTT = 0.02


class Path:
    """A path on which some ways get through, with the machine at this end.

    Args:
        passes: the ways that are answered.
        loss: share of datagrams lost; a large trial has forty.
    """

    def __init__(
        self, *passes: Way, segmented: bool = True, loss: float = 0.0, seed: int = 1
    ) -> None:
        self.passes = set(passes)
        self.loss = loss
        self.now = 0.0
        self.steps: list[tuple[float, Step]] = []
        self._rng = random.Random(seed)
        self.machine = Trial(timing=TIMING, segmented=segmented, now=0.0)

    def run(self, until: float) -> None:
        """Let time pass up to `until`; answers come before the next deadline."""
        while (due := self.machine.next_deadline()) is not None and due <= until:
            self.now = due
            taken = self.machine.on_deadline(due)
            self.machine.check_invariants()
            self.steps += [(due, step) for step in taken]
            for step in taken:
                kept = (1 - self.loss) ** (40 if step.way in BIG else 1)
                if step.way in self.passes and self._rng.random() < kept * (1 - self.loss):
                    self.machine.on_reply(step.number)
                    self.machine.check_invariants()
        self.now = until

    def ways(self) -> list[Way]:
        return [step.way for _, step in self.steps]


def test_where_segmented_bursts_arrive_one_is_all_it_takes() -> None:
    path = Path(*Way)
    assert path.machine.segmented, "data need not wait"
    path.run(1000.0)
    assert path.ways() == [Way.SEGMENTED]
    assert (path.machine.verdict, path.machine.segmented) == (Verdict.PROVEN, True)
    assert path.machine.next_deadline() is None


def test_where_only_single_datagrams_arrive_segmented_sends_end_after_four_rounds() -> None:
    path = Path(Way.SINGLY, Way.SMALL)
    path.run(ROUNDS * RETRY - 0.01)
    assert path.machine.segmented
    path.run(ROUNDS * RETRY)
    assert (path.machine.verdict, path.machine.segmented) == (Verdict.FAILED, False)
    three = [Way.SEGMENTED, Way.SINGLY, Way.SMALL]
    assert path.ways() == [Way.SEGMENTED, *three, *three, *three]


def test_a_failure_is_tried_again_and_healed_by_one_answer() -> None:
    path = Path(Way.SINGLY, Way.SMALL)
    path.run(10.0)
    assert not path.machine.segmented
    path.passes = set(Way)
    path.run(ROUNDS * RETRY + TIMING.path_confirm_interval)
    assert (path.machine.verdict, path.machine.segmented) == (Verdict.PROVEN, True)


def test_where_large_bursts_arrive_in_no_way_the_far_end_is_asked_once() -> None:
    path = Path(Way.SMALL)
    path.run(1000.0)
    assert path.ways().count(Way.PLEA) == 1
    assert path.ways().index(Way.PLEA) == 1 + 3 * (ROUNDS - 1)
    assert (path.machine.verdict, path.machine.segmented) == (Verdict.UNKNOWN, True)


def test_a_plea_that_helps_is_noticed_by_the_rounds_after_it() -> None:
    path = Path(Way.SMALL)
    path.run(ROUNDS * RETRY)
    assert path.ways()[-1] is Way.PLEA
    path.passes = set(Way)
    path.run(ROUNDS * RETRY + 2 * RETRY)
    assert path.machine.verdict is Verdict.PROVEN


def test_where_nothing_is_answered_nothing_is_concluded_and_it_is_left_at_that() -> None:
    path = Path()
    path.run(10_000.0)
    assert (path.machine.verdict, path.machine.segmented) == (Verdict.UNKNOWN, True)
    assert Way.PLEA not in path.ways()
    assert path.ways().count(Way.SEGMENTED) == ROUNDS * SERIES
    assert path.machine.next_deadline() is None


def test_a_failure_is_not_forgotten_because_later_nothing_is_answered() -> None:
    path = Path(Way.SINGLY, Way.SMALL)
    path.run(10.0)
    path.passes = set()
    path.run(10_000.0)
    assert (path.machine.verdict, path.machine.segmented) == (Verdict.FAILED, False)


def test_a_late_answer_proves_the_same() -> None:
    path = Path(Way.SINGLY, Way.SMALL)
    path.run(10.0)
    path.machine.on_reply(1)
    assert (path.machine.verdict, path.machine.segmented) == (Verdict.PROVEN, True)
    assert path.machine.next_deadline() is None


@pytest.mark.parametrize("number", [0, 2, 99, -1])
def test_an_answer_to_what_was_never_sent_proves_nothing(number: int) -> None:
    path = Path()
    path.run(0.0)
    path.machine.on_reply(number)
    assert path.machine.verdict is Verdict.TRYING


def test_without_segmentation_small_trials_go_on_until_one_is_answered() -> None:
    path = Path(segmented=False)
    path.run(1.0)
    assert set(path.ways()) == {Way.SMALL}
    assert not path.machine.segmented
    path.passes = {Way.SMALL}
    path.run(100.0)
    assert path.machine.verdict is Verdict.PROVEN
    assert path.machine.next_deadline() is None


@pytest.mark.parametrize("seed", range(6))
def test_three_percent_loss_ends_with_segmented_sends(seed: int) -> None:
    path = Path(*Way, loss=0.03, seed=seed)
    path.run(600.0)
    assert (path.machine.verdict, path.machine.segmented) == (Verdict.PROVEN, True)


@given(st.lists(st.tuples(st.floats(0.0, 40.0), st.integers(0, 50)), max_size=60))
def test_whatever_is_answered_it_stays_in_bounds_and_finds_rest(
    events: list[tuple[float, int]],
) -> None:
    path = Path()
    for wait, number in events:
        path.run(path.now + wait)
        path.machine.on_reply(number)
        path.machine.check_invariants()
    path.run(path.now + 1000.0)
    assert path.machine.next_deadline() is None
