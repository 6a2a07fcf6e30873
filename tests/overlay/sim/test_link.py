"""Tests of links that lose, repeat, delay and reorder."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import ConfigError
from overlay.sim.link import MIN_MTU, Link, Lost, Pipe, Spread, cut
from overlay.sim.lots import Lots

shares = st.floats(0.0, 1.0)
links = st.builds(
    Link,
    jitter=st.floats(0.0, 0.1),
    loss=shares,
    duplication=shares,
    reordering=shares,
    mtu=st.integers(MIN_MTU, 1500),
    coalesce=st.booleans(),
)


def carried(link: Link, count: int, seed: int = 1) -> list:
    """Fates of `count` numbered datagrams, sent 1 ms apart."""
    pipe = Pipe(link, Lots(str(seed)))
    return [pipe.carry(n.to_bytes(2), 0, 28, n * 0.001)[0] for n in range(count)]


@given(links, st.binary(min_size=1, max_size=6000), st.integers(1, 1500), st.integers(0, 9))
def test_every_datagram_is_read_as_often_as_its_fate_says(link, burst, segment_size, seed):
    pipe = Pipe(link, Lots(str(seed)))
    fates = pipe.carry(burst, segment_size, 28, 5.0)
    assert b"".join(fate.datagram for fate in fates) == burst
    expected = sorted(fate.datagram for fate in fates for _ in fate.arrivals)
    reads = pipe.reads(fates, segment_size)
    assert sorted(d for read in reads for d in cut(read.buffer, read.segment_size)) == expected
    assert all(read.at >= 5.0 + link.latency for read in reads)
    for fate in fates:
        assert (fate.lost is None) == bool(fate.arrivals)


def test_a_good_link_delivers_everything_once_after_its_latency():
    assert [fate.arrivals for fate in carried(Link(latency=0.5), 3)] == [(0.5,), (0.501,), (0.502,)]


def test_jitter_delays_but_lets_none_overtake():
    times = [fate.arrivals[0] for fate in carried(Link(jitter=0.1), 200)]
    assert times == sorted(times)
    delays = [at - number * 0.001 for number, at in enumerate(times)]
    assert min(delays) >= 0.01
    assert 0.05 < max(delays) <= 0.11


def test_reordering_lets_later_datagrams_overtake():
    times = [fate.arrivals[0] for fate in carried(Link(reordering=0.2), 200)]
    assert times != sorted(times)


def test_loss_and_duplication_hit_their_share():
    fates = carried(Link(loss=0.2, duplication=0.25), 5000)
    lost = sum(fate.lost is Lost.CHANCE for fate in fates)
    twice = sum(len(fate.arrivals) == 2 for fate in fates)
    assert lost == pytest.approx(1000, abs=100)
    assert twice == pytest.approx(1000, abs=100)


def test_a_datagram_over_the_mtu_vanishes_in_a_black_hole():
    pipe = Pipe(Link(mtu=1280), Lots("1"))
    assert pipe.carry(bytes(1252), 0, 28, 0.0)[0].lost is None
    assert pipe.carry(bytes(1253), 0, 28, 0.0)[0].lost is Lost.TOO_BIG
    assert pipe.carry(bytes(1233), 0, 48, 0.0)[0].lost is Lost.TOO_BIG


def test_the_same_seed_decides_the_same_fates():
    link = Link.terrible()
    assert carried(link, 100, seed=7) == carried(link, 100, seed=7)
    assert carried(link, 100, seed=7) != carried(link, 100, seed=8)


def test_the_datagrams_of_one_send_are_read_together_when_the_link_coalesces():
    pipe = Pipe(Link(coalesce=True, jitter=0.1), Lots("1"))
    fates = pipe.carry(b"aabbccd", 2, 28, 0.0)
    (read,) = pipe.reads(fates, 2)
    assert (read.buffer, read.segment_size) == (b"aabbccd", 2)
    alone = Pipe(Link(), Lots("1"))
    reads = alone.reads(alone.carry(b"aabbccd", 2, 28, 0.0), 2)
    assert [read.buffer for read in reads] == [b"aa", b"bb", b"cc", b"d"]


def test_what_survives_of_a_burst_is_read_together():
    pipe = Pipe(Link(coalesce=True, loss=0.5), Lots("3"))
    fates = pipe.carry(b"aabbccddee", 2, 28, 0.0)
    survivors = [fate.datagram for fate in fates if fate.arrivals]
    assert 1 < len(survivors) < 5
    (read,) = pipe.reads(fates, 2)
    assert read.buffer == b"".join(survivors)


@pytest.mark.parametrize(
    ("key", "value"), [("loss", 1.1), ("reordering", -0.1), ("latency", -1.0), ("mtu", 100)]
)
def test_a_link_that_cannot_be_is_refused_by_the_name_of_its_setting(key, value):
    with pytest.raises(ConfigError) as refused:
        Link(**{key: value})
    assert refused.value.key == key


def test_a_rate_spaces_datagrams_and_a_full_queue_drops():
    link = Link(latency=0.0, rate=8000.0, queue=300)  # 1000 bytes a second
    pipe = Pipe(link, Lots("1"))
    fates = pipe.carry(bytes(4 * 72), 72, 28, 0.0)
    assert [fate.arrivals[0] for fate in fates[:3]] == pytest.approx([0.1, 0.2, 0.3])
    assert fates[3].lost is Lost.QUEUE
    (later,) = pipe.carry(bytes(72), 0, 28, 1.0)
    assert later.arrivals == pytest.approx((1.1,))


def test_an_idle_link_takes_a_datagram_that_is_larger_than_its_queue():
    pipe = Pipe(Link(rate=8000.0, queue=0), Lots("1"))
    assert pipe.carry(bytes(1000), 0, 28, 0.0)[0].lost is None
    assert pipe.carry(bytes(10), 0, 28, 0.0)[0].lost is Lost.QUEUE


def test_bursts_of_loss_are_as_frequent_and_as_long_as_they_should_be():
    lost = [fate.lost is not None for fate in carried(Link(bad_enter=0.01, bad_leave=0.1), 50_000)]
    assert sum(lost) == pytest.approx(50_000 * 0.01 / 0.11, rel=0.15)
    runs = sum(now and not before for before, now in pairwise(lost))
    assert sum(lost) / runs == pytest.approx(10, rel=0.15)


@pytest.mark.parametrize(
    ("spread", "mean", "longest"),
    [(Spread.UNIFORM, 0.05, 0.1), (Spread.NORMAL, 0.0798, 0.45), (Spread.EXPONENTIAL, 0.1, 1.3)],
)
def test_delays_are_distributed_as_the_link_says(spread, mean, longest):
    link = Link(latency=1.0, jitter=0.1, spread=spread)
    pipe = Pipe(link, Lots("1"))
    delays = [pipe.carry(b"x", 0, 28, n * 9.0)[0].arrivals[0] - n * 9.0 - 1.0 for n in range(5000)]
    assert sum(delays) / 5000 == pytest.approx(mean, rel=0.05)
    assert min(delays) >= 0.0
    assert longest / 2 < max(delays) <= longest


@pytest.mark.parametrize("link", [Link.lan(), Link.wan(), Link.satellite(), Link.terrible()])
def test_every_preset_carries_most_of_what_it_is_given(link):
    fates = carried(link, 2000)
    assert sum(fate.lost is None for fate in fates) > 1700
