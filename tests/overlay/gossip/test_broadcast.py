"""News goes out a limited number of times, what went least first."""

from __future__ import annotations

from collections import Counter
from math import ceil, log10

from overlay.gossip.broadcast import RETRANSMIT, Broadcasts
from tests.support.gossips import node_id

A, B = node_id(1), node_id(2)


def test_news_goes_out_as_often_as_the_cluster_is_large():
    for members in (1, 8, 1000):
        news = Broadcasts()
        news.put(A, members)
        count = sum(bool(news.take()) for _ in range(100))
        assert count == ceil(RETRANSMIT * log10(members + 1))
        assert not news


def test_what_went_out_least_goes_first_and_all_of_it_equally_often():
    news = Broadcasts()
    for number in range(10):
        news.put(node_id(number), 99)
    taken = Counter()
    while news:
        batch = news.take(3)
        taken.update(batch)
        assert len(batch) == len(set(batch)) <= 3
        assert max(taken.values()) - min(taken[node_id(n)] for n in range(10)) <= 1
    assert set(taken.values()) == {ceil(RETRANSMIT * 2)}


def test_newer_news_about_the_same_node_starts_over():
    news = Broadcasts()
    news.put(A, 9)
    news.take()
    news.put(A, 9)
    assert len(news) == 1
    assert sum(bool(news.take()) for _ in range(100)) == RETRANSMIT
    news.put(B, 9)
    news.drop(B)
    news.drop(B)
    assert not news
    assert news.take() == []


def test_news_for_nobody_is_not_kept():
    news = Broadcasts()
    news.put(A, 9)
    news.put(A, 0)
    assert not news
    assert news.take() == []
