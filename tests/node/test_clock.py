"""The wall clock is followed when somebody sets it."""

from __future__ import annotations

import pytest

from node.clock import STEP, WallWatch


class Clocks:
    """A machine's two clocks."""

    def __init__(self) -> None:
        self.monotonic = 100.0
        self.wall = 1_000_100.0
        self.watch = WallWatch(lambda: self.monotonic, lambda: self.wall)

    def pass_(self, seconds: float, step: float = 0.0) -> float | None:
        self.monotonic += seconds
        self.wall += seconds + step
        return self.watch.step()


def test_time_that_passes_is_no_step() -> None:
    clocks = Clocks()
    assert clocks.watch.epoch == 1_000_000.0
    assert clocks.pass_(86_400.0) is None
    assert clocks.pass_(1.0, STEP) is None


@pytest.mark.parametrize("step", [3600.0, -3600.0, 1.5])
def test_a_clock_that_is_set_is_followed_once(step: float) -> None:
    clocks = Clocks()
    assert clocks.pass_(5.0, step) == step
    assert clocks.watch.epoch == 1_000_000.0 + step
    assert clocks.pass_(5.0) is None


def test_slow_corrections_add_up_to_a_step() -> None:
    clocks = Clocks()
    drifts = [clocks.pass_(5.0, 0.25) for _ in range(10)]
    assert [drift for drift in drifts if drift is not None] == [1.25, 1.25]


def test_the_clocks_of_this_machine_agree() -> None:
    assert WallWatch().step() is None
