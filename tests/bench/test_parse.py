"""Tests of reading iperf3 and ping. Texts are shortened from real output."""

from __future__ import annotations

import json

import pytest

from bench.parse import parse_ping, parse_tcp, parse_udp
from node.errors import NodeError


def tcp(**end: dict[str, float]) -> str:
    return json.dumps({"start": {}, "intervals": [], "end": end})


def received(gbit: float, count: int) -> dict[str, float]:
    return {"bits_per_second": gbit * 1e9, "bytes": count, "seconds": 2.0}


def test_tcp_is_what_was_received():
    text = tcp(sum_sent=received(9.0, 9), sum_received=received(7.5, 1000))
    assert parse_tcp(text) == (7.5, 1000)


def test_both_directions_are_added():
    text = tcp(sum_received=received(2.0, 10), sum_received_bidir_reverse=received(3.0, 20))
    assert parse_tcp(text) == (5.0, 30)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"end": {}, "error": "unable to connect"}', "iperf3: unable to connect"),
        ('{"end": {}}', "no sum"),
        ("Segmentation fault", "no JSON: 'Segmentation fault'"),
    ],
)
@pytest.mark.parametrize("parse", [parse_tcp, parse_udp])
def test_what_iperf3_could_not_do_is_an_error(parse, text, why):
    with pytest.raises(NodeError, match=why):
        parse(text)


def test_udp_is_what_the_receiver_counted():
    text = tcp(sum_received={"packets": 1000, "lost_packets": 250, "seconds": 2.0})
    assert parse_udp(text) == (375.0, 0.25)


def test_nothing_sent_is_all_lost():
    text = tcp(sum_received={"packets": 0, "lost_packets": 0, "seconds": 1.0})
    assert parse_udp(text) == (0.0, 1.0)


PING = """PING 10.244.1.2 (10.244.1.2) 56(84) bytes of data.
64 bytes from 10.244.1.2: icmp_seq=1 ttl=62 time=0.250 ms
64 bytes from 10.244.1.2: icmp_seq=2 ttl=62 time=12 ms
64 bytes from 10.244.1.2: icmp_seq=4 ttl=62 time=0.3 ms

--- 10.244.1.2 ping statistics ---
4 packets transmitted, 3 received, 25% packet loss, time 6ms
rtt min/avg/max/mdev = 0.250/4.183/12.000/5.5 ms
"""


def test_every_answer_of_a_ping_counts():
    assert parse_ping(PING) == ((0.25, 12.0, 0.3), 4, 3)


def test_a_ping_without_an_answer_is_an_error():
    with pytest.raises(NodeError, match="no answer"):
        parse_ping("4 packets transmitted, 0 received, 100% packet loss, time 6ms")
