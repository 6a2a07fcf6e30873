"""A seeded stream of numbers: the published one, even, and told apart by its seed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from overlay.sim.lots import GAMMA, Lots, mix

COUNT = 10_000


def drawn(seed: str) -> list[float]:
    lots = Lots(seed)
    return [lots.random() for _ in range(COUNT)]


def test_the_numbers_are_those_of_splitmix64():
    # The first five of seed 1234567, as its authors' C code prints them.
    states = (1234567 + step * GAMMA & (1 << 64) - 1 for step in range(1, 6))
    assert list(map(mix, states)) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_equal_seeds_make_equal_streams_and_others_do_not():
    assert drawn("a") == drawn("a")
    assert not set(drawn("a")) & set(drawn("b"))


def test_numbers_are_spread_evenly_and_do_not_follow_each_other():
    numbers = drawn("even")
    assert all(0.0 <= number < 1.0 for number in numbers)
    tenths = [sum(int(number * 10) == tenth for number in numbers) for tenth in range(10)]
    assert all(count == pytest.approx(COUNT / 10, rel=0.1) for count in tenths)
    apart = sum(abs(one - other) for one, other in pairwise(numbers)) / (COUNT - 1)
    assert apart == pytest.approx(1 / 3, rel=0.02)
