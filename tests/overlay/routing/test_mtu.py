"""Tests of overlay.routing.mtu, on a simulated path in virtual time."""

from __future__ import annotations

import heapq
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overlay.config import Timing
from overlay.routing.mtu import BASE, CANDIDATES, LARGEST, PathMtu

TIMING = Timing()
RTT = 0.02


class Path:
    """A path that carries packets up to `real`, losing some, with the machine at this end."""

    def __init__(self, real: int, *, largest: int = 9000, loss: float = 0.0, seed: int = 1) -> None:
        self.real = real
        self.loss = loss
        self.now = 0.0
        self.probes: list[tuple[float, int]] = []
        self._rng = random.Random(seed)
        self._replies: list[tuple[float, int]] = []
        self.machine = PathMtu(timing=TIMING, largest=largest, now=0.0)

    def send(self, sizes: list[int]) -> None:
        for size in sizes:
            self.probes.append((self.now, size))
            # One chance for the probe, one for its answer.
            lost = any(self._rng.random() < self.loss for _ in range(2))
            if size <= self.real and not lost:
                heapq.heappush(self._replies, (self.now + RTT, size))
        self.machine.check_invariants()

    def run(self, until: float) -> None:
        """Let time pass up to `until`."""
        while True:
            due = self.machine.next_deadline()
            due = until + 1 if due is None else due
            reply_at = self._replies[0][0] if self._replies else until + 1
            if min(due, reply_at) > until:
                self.now = until
                return
            self.now = max(self.now, min(due, reply_at))
            if reply_at <= due:
                self.send(self.machine.on_reply(heapq.heappop(self._replies)[1], self.now))
            else:
                self.send(self.machine.on_deadline(self.now))

    @property
    def best(self) -> int:
        """The largest candidate that fits the path."""
        return max(size for size in (BASE, *CANDIDATES, 9000) if size <= self.real)


def test_it_starts_at_the_base_size() -> None:
    machine = PathMtu(timing=TIMING, largest=1500, now=3.0)
    assert machine.mtu == BASE == 1280
    assert machine.next_deadline() == 3.0
    assert machine.on_deadline(2.9) == []


def test_the_usual_path_is_settled_in_one_round_trip() -> None:
    path = Path(1500, largest=1500)
    path.run(RTT)
    assert path.machine.mtu == 1500
    assert path.probes == [(0.0, 1500), (0.0, BASE)]
    assert not path.machine.searching


@given(st.integers(1280, 9000))
@settings(max_examples=60)
def test_any_path_is_settled_at_the_largest_candidate_that_fits(real: int) -> None:
    path = Path(real)
    path.run(8.0)
    assert path.machine.mtu == path.best
    assert not path.machine.searching


@pytest.mark.parametrize("real", [1280, 1400, 1500, 8950])
@pytest.mark.parametrize("seed", range(4))
def test_a_lossy_path_finds_its_size_within_a_raise_interval_and_mostly_keeps_it(
    real: int, seed: int
) -> None:
    path = Path(real, loss=0.3, seed=seed)
    reached, seconds = None, 3 * int(TIMING.path_raise_interval)
    right = 0
    for second in range(seconds):
        path.run(float(second))
        if path.machine.mtu == path.best:
            reached = second if reached is None else reached
            right += 1
    assert reached is not None
    assert reached <= TIMING.path_raise_interval + 60.0
    assert right / seconds > 0.5


def test_no_size_is_used_that_was_not_proven() -> None:
    path = Path(1450, loss=0.3)
    for _ in range(400):
        path.run(path.now + 5.0)
        assert path.machine.mtu <= path.real


def test_a_path_that_shrinks_is_noticed_by_a_confirmation() -> None:
    path = Path(1500, largest=1500)
    path.run(100.0)
    path.real = 1400
    path.run(100.0 + TIMING.path_confirm_interval + 8.0)
    assert path.machine.mtu == 1400


def test_a_path_that_grows_is_noticed_by_the_raise_timer() -> None:
    path = Path(1400, largest=1500)
    path.run(100.0)
    path.real = 1500
    path.run(TIMING.path_raise_interval - 10.0)
    assert path.machine.mtu == 1400
    path.run(TIMING.path_raise_interval + 10.0)
    assert path.machine.mtu == 1500


def test_a_link_that_is_down_is_not_taken_for_a_small_one() -> None:
    path = Path(1500, largest=1500)
    path.run(10.0)
    path.real = 0
    path.run(300.0)
    assert path.machine.mtu == 1500
    path.real = 1500
    path.run(340.0)
    assert path.machine.mtu == 1500


def test_a_link_that_comes_up_late_is_searched_from_the_top() -> None:
    path = Path(0, largest=1500)
    path.run(20.0)
    assert path.machine.mtu == BASE
    path.real = 1500
    path.run(20.0 + TIMING.path_confirm_interval)
    assert path.machine.mtu == 1500
    assert [size for at, size in path.probes if at > 20.0] == [1500, BASE]


def test_a_settled_path_is_confirmed_now_and_then() -> None:
    path = Path(1500, largest=1500)
    path.run(95.0)
    assert [size for _, size in path.probes] == [1500, BASE] * 4


def test_a_size_is_tried_three_times_with_a_control_beside_each() -> None:
    path = Path(1280, largest=1360)
    path.run(10.0)
    assert path.probes == [(at, size) for at in (0.0, 0.5, 1.0) for size in (1360, BASE)]
    assert path.machine.mtu == BASE


def test_a_round_with_too_few_controls_goes_on_and_then_proves_nothing() -> None:
    path = Path(0, largest=1360)
    path.run(10.0)
    assert [at for at, _ in path.probes] == [
        0.0,
        0.0,
        0.5,
        0.5,
        1.0,
        1.0,
        1.5,
        1.5,
        2.0,
        2.0,
        2.5,
        2.5,
    ]
    assert path.machine.searching


def test_nothing_is_ever_due_where_only_the_base_size_is_possible() -> None:
    path = Path(1280, largest=1280)
    path.run(1.0)
    assert path.probes == []
    assert path.machine.next_deadline() is None
    assert PathMtu(timing=TIMING, largest=576, now=0.0).mtu == BASE


def test_larger_interfaces_than_jumbo_frames_are_not_probed() -> None:
    path = Path(65536, largest=65536)
    path.run(1.0)
    assert path.machine.mtu == LARGEST


def test_a_hint_during_a_search_ends_the_probe_at_once() -> None:
    path = Path(1400, largest=1500)
    path.run(0.01)
    path.send(path.machine.on_too_big(BASE, path.now))
    assert [path.probes[at] for at in (0, 2)] == [(0.0, 1500), (0.01, 1440)]


def test_a_hint_about_the_size_in_use_restarts_the_search_below_it() -> None:
    path = Path(1500, largest=1500)
    path.run(10.0)
    path.real = 1450
    path.send(path.machine.on_too_big(1500, path.now))
    assert path.machine.mtu == BASE
    assert path.probes[-2] == (10.0, 1492)
    path.run(20.0)
    assert path.machine.mtu == 1450


@pytest.mark.parametrize("hint", [0, 576, BASE, 1501, 9000])
def test_a_hint_that_cannot_concern_the_size_in_use_changes_nothing(hint: int) -> None:
    path = Path(1500, largest=1500)
    path.run(10.0)
    assert path.machine.on_too_big(hint, 10.0) == []
    assert path.machine.mtu == 1500


def test_hints_never_go_below_the_base_size_nor_up() -> None:
    path = Path(1500, largest=1500)
    for hint in [1500, 9000, 1281, 68, 1500] * 10:
        before = path.machine.mtu
        path.machine.on_too_big(hint, path.now)
        path.machine.check_invariants()
        assert BASE <= path.machine.mtu <= before
        path.run(path.now + 0.7)


def test_an_answer_to_what_was_never_asked_changes_nothing() -> None:
    path = Path(1400, largest=9000)
    path.run(0.01)
    for size in (1492, 1401, 8950, 9001, 0):
        assert path.machine.on_reply(size, path.now) == []
    assert path.machine.mtu == BASE


def test_a_late_answer_counts() -> None:
    path = Path(1400, largest=1500)
    path.run(30.0)
    assert path.machine.mtu == 1400
    path.machine.on_reply(1500, path.now)
    path.machine.check_invariants()
    assert path.machine.mtu == 1500


# -- jumbo frames ----------------------------------------------------------------------------------


def test_ethernets_size_is_used_at_once_where_jumbo_frames_do_not_pass() -> None:
    path = Path(1500, largest=9000)
    path.run(RTT)
    assert path.probes == [(0.0, 9000), (0.0, 1500), (0.0, BASE)]
    assert path.machine.mtu == 1500
    path.run(8.0)
    assert path.machine.mtu == 1500
    assert not path.machine.searching


def test_a_jumbo_path_is_settled_in_one_round_trip() -> None:
    path = Path(9000, largest=9000)
    path.run(RTT)
    assert path.machine.mtu == 9000
    assert not path.machine.searching


def test_a_larger_interface_is_tried_at_once() -> None:
    path = Path(9000, largest=1500)
    path.run(100.0)
    path.send(path.machine.on_largest(9000, path.now))
    assert path.machine.mtu == 1500
    path.run(100.0 + RTT)
    assert path.machine.mtu == 9000


def test_a_smaller_interface_is_believed_at_once_and_searched_below() -> None:
    path = Path(9000, largest=9000)
    path.run(100.0)
    path.real = 1450
    path.send(path.machine.on_largest(1450, path.now))
    assert path.machine.mtu == BASE
    path.run(101.0)
    assert path.machine.mtu == 1450
    assert max(size for at, size in path.probes if at >= 100.0) == 1450


@pytest.mark.parametrize("largest", [1430, 1500, 9216])
def test_an_interface_that_changes_above_the_size_in_use_keeps_it(largest: int) -> None:
    path = Path(1430, largest=1430)
    path.run(100.0)
    path.send(path.machine.on_largest(largest, path.now))
    assert path.machine.mtu == 1430
    path.run(120.0)
    assert path.machine.mtu == 1430


# -- loss ------------------------------------------------------------------------------------------


def test_reported_loss_brings_a_confirmation_and_that_decides() -> None:
    path = Path(1500, largest=1500)
    path.run(10.0)
    path.send(path.machine.on_loss(path.now))
    assert path.probes[-2:] == [(10.0, 1500), (10.0, BASE)]
    path.run(11.0)
    assert path.machine.mtu == 1500


def test_a_black_hole_is_found_within_seconds_of_the_first_report() -> None:
    path = Path(1500, largest=1500)
    path.run(10.0)
    path.real = 1400
    path.send(path.machine.on_loss(path.now))
    path.run(10.0 + 3 * TIMING.path_probe_retry)
    assert path.machine.mtu == BASE
    path.run(10.0 + 10 * TIMING.path_probe_retry)
    assert path.machine.mtu == 1400


@pytest.mark.parametrize("seed", range(4))
def test_a_link_that_loses_three_percent_keeps_its_size_whatever_is_reported(seed: int) -> None:
    path = Path(1500, largest=1500, loss=0.03, seed=seed)
    path.run(10.0)
    assert path.machine.mtu == 1500
    before = len(path.probes)
    for second in range(11, 611):  # one report a second: every burst of 43 segments is hit
        path.run(float(second))
        path.send(path.machine.on_loss(path.now))
        assert path.machine.mtu == 1500
    # Asking is backed off: not much more than the confirmations there are anyway.
    assert len(path.probes) - before < 200


def test_after_a_time_without_loss_a_report_counts_at_once_again() -> None:
    path = Path(1500, largest=1500)
    for second in range(10, 100):
        path.run(float(second))
        path.send(path.machine.on_loss(path.now))
    path.run(200.0)
    path.real = 1400
    path.send(path.machine.on_loss(path.now))
    assert path.probes[-2] == (200.0, 1500)
    path.run(201.0)
    assert path.machine.on_loss(path.now) == []  # a round is under way already
    path.run(200.0 + 3 * TIMING.path_probe_retry)
    assert path.machine.mtu == BASE


def test_at_the_base_size_loss_asks_nothing() -> None:
    path = Path(1280, largest=1500)
    path.run(10.0)
    assert path.machine.on_loss(path.now) == []


def test_another_endpoint_is_another_path() -> None:
    path = Path(1500, largest=1500)
    path.run(10.0)
    path.machine.reset(10.0)
    assert (path.machine.mtu, path.machine.next_deadline()) == (BASE, 10.0)
    path.real = 1420
    path.run(20.0)
    assert path.machine.mtu == 1420


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["reply", "hint", "wait", "reset", "loss", "largest"]),
            st.sampled_from([0, *CANDIDATES, BASE, 9000]),
        ),
        max_size=40,
    )
)
def test_whatever_happens_it_stays_in_bounds_and_finds_rest(steps: list[tuple[str, int]]) -> None:
    path = Path(1450)
    for what, size in steps:
        match what:
            case "reply":
                path.send(path.machine.on_reply(size, path.now))
            case "hint":
                path.send(path.machine.on_too_big(size, path.now))
            case "reset":
                path.machine.reset(path.now)
            case "loss":
                path.send(path.machine.on_loss(path.now))
            case "largest":
                path.send(path.machine.on_largest(size, path.now))
            case _:
                path.run(path.now + size / 100)
    path.run(path.now + 60.0)
    assert not path.machine.searching
