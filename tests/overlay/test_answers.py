"""Tests of overlay.answers."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from overlay.answers import BURST, RATE, IcmpAnswers
from overlay.drops import DropReason
from overlay.wire.virtio import NO_OFFLOAD, VIRTIO_HEADER_SIZE
from tests.support.builders import checksums_are_right, icmp4, udp4, udp6

NODE, NODE6 = IPv4Address("10.244.1.1"), IPv6Address("fd00:0:0:1::1")
POD, POD6 = "10.244.1.2", "fd00:0:0:1::2"
LOST4 = (DropReason.NO_ROUTE, udp4(POD, "10.244.9.9", b"anyone?"))
LOST6 = (DropReason.NO_ROUTE, udp6(POD6, "fd00:0:0:9::9", b"anyone?"))


class Tun:
    """What was written to it; refuses while told to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.refuse = False
        self.answers = IcmpAnswers(self._deliver)

    def _deliver(self, packet: memoryview) -> bool:
        if not self.refuse:
            self.written.append(bytes(packet))
        return not self.refuse

    def answer(self, *rejected: tuple[DropReason, bytes], now: float = 100.0) -> int:
        return self.answers.answer(list(rejected), NODE, NODE6, now)

    def packets(self) -> list[bytes]:
        assert all(written[:VIRTIO_HEADER_SIZE] == NO_OFFLOAD for written in self.written)
        return [written[VIRTIO_HEADER_SIZE:] for written in self.written]


def test_a_pod_hears_from_its_node_that_there_is_no_route() -> None:
    tun = Tun()
    assert tun.answer(LOST4, LOST6) == 2
    four, six = tun.packets()
    assert (ip_address(four[12:16]), ip_address(four[16:20])) == (NODE, ip_address(POD))
    assert (four[9], four[20], four[21]) == (1, 3, 0)  # ICMP, unreachable, network
    assert four[28:].startswith(LOST4[1][:20])  # quotes what it is about
    assert (ip_address(six[8:24]), ip_address(six[24:40])) == (NODE6, ip_address(POD6))
    assert (six[6], six[40], six[41]) == (58, 1, 0)  # ICMPv6, unreachable, no route
    assert checksums_are_right(four)
    assert checksums_are_right(six)


def test_the_rate_of_answers_is_bounded() -> None:
    tun = Tun()
    assert tun.answer(*[LOST4] * 100) == BURST
    assert tun.answer(LOST4) == 0
    assert tun.answer(*[LOST4] * 100, now=100.125) == int(RATE * 0.125)
    assert tun.answer(*[LOST4] * 100, now=1000.0) == BURST


def test_over_a_minute_no_more_than_the_rate_is_sent() -> None:
    tun = Tun()
    written = sum(tun.answer(*[LOST4] * 16, now=100.0 + step / 50) for step in range(3000))
    assert RATE * 59 <= written <= RATE * 60 + BURST


def test_a_family_in_which_the_node_has_no_address_is_not_answered() -> None:
    tun = Tun()
    assert tun.answers.answer([LOST4, LOST6], None, NODE6, 100.0) == 1
    assert tun.answers.answer([LOST4, LOST6], NODE, None, 100.0) == 1
    assert [packet[0] >> 4 for packet in tun.packets()] == [6, 4]


def test_an_error_is_not_answered_with_an_error_and_costs_nothing() -> None:
    tun = Tun()
    error = (DropReason.NO_ROUTE, icmp4(POD, "10.244.9.9", 3, 1, bytes(28)))
    assert tun.answer(*[error] * 50) == 0
    assert tun.answer(LOST4) == 1


def test_a_tun_that_refuses_costs_nothing() -> None:
    tun = Tun()
    tun.refuse = True
    assert tun.answer(*[LOST4] * 50) == 0
    tun.refuse = False
    assert tun.answer(*[LOST4] * 50) == BURST
