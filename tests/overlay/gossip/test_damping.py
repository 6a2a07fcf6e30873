"""Flapping keys are damped, and only as long as they flap."""

from __future__ import annotations

from overlay.gossip.damping import HALF_LIFE, LIMIT, SUPPRESS, Damping


def test_a_burst_passes_and_what_goes_on_for_long_does_not():
    damping = Damping()
    assert all(damping.on_change(b"k", 1.0) for _ in range(int(SUPPRESS)))
    assert not damping.on_change(b"k", 1.0)
    assert damping.damped(1.0) == [b"k"]
    assert damping.suppressed == 1
    assert damping.on_change(b"other", 1.0)


def test_one_change_a_second_is_never_damped_and_three_are():
    slow, fast = Damping(), Damping()
    assert all(slow.on_change(b"k", float(second)) for second in range(300))
    assert not all(fast.on_change(b"k", third / 3) for third in range(300))


def test_a_key_that_has_calmed_down_is_offered_again():
    damping = Damping()
    for _ in range(40):
        damping.on_change(b"k", 0.0)
    assert not damping.on_change(b"k", HALF_LIFE)  # some 20 are left
    assert damping.damped(1.5 * HALF_LIFE) == [b"k"]
    assert damping.damped(3 * HALF_LIFE) == []
    assert damping.on_change(b"k", 3 * HALF_LIFE)


def test_the_memory_is_bounded_and_keeps_the_worst():
    damping = Damping()
    for _ in range(40):
        damping.on_change(b"flapping", 0.0)
    for number in range(3 * LIMIT):
        damping.on_change(b"%d" % number, 0.0)
    assert len(damping) <= LIMIT
    assert not damping.on_change(b"flapping", 0.0)


def test_what_has_decayed_is_forgotten_and_nothing_else():
    damping = Damping()
    for _ in range(4):
        damping.on_change(b"often", 0.0)
    damping.on_change(b"once", 0.0)
    damping.on_time(0.9 * HALF_LIFE)
    assert len(damping) == 2
    damping.on_change(b"lately", 1.5 * HALF_LIFE)
    damping.on_time(2.1 * HALF_LIFE)
    assert len(damping) == 2, "a penalty of 4 takes three half-lives"
    damping.on_time(4 * HALF_LIFE)
    assert len(damping) == 0
