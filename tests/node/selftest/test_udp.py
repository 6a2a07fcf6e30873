"""The self-test of the socket: what works passes, and every kind of damage is seen."""

from __future__ import annotations

import pytest

from node.io.ports import Received
from node.io.udp import UdpSocket
from node.selftest import udp as module
from node.selftest.udp import SIZE, check_udp
from overlay.types import Endpoint
from tests.support.namespace import in_namespace
from tests.support.privileged import NEEDS_KERNEL

BOTH = ("udp_gso", "udp_gro")


class Faulty(UdpSocket):
    """A socket over a kernel that does something to runs of datagrams.

    Attributes:
        fault: of `udp_gso` or `udp_gro`.
        how: what it does.
    """

    fault, how = "", ""

    def send(self, endpoint: Endpoint, datagrams: memoryview, step: int) -> bool:
        if self.fault == "udp_gso" and self._gso:
            datagrams, step = self._changed(datagrams, step)
        return super().send(endpoint, datagrams, step)

    def receive(self) -> Received | None:
        read = super().receive()
        if read is None or not read.step or self.fault != "udp_gro":
            return read
        return Received(*self._changed(read.datagrams, read.step), read.source)

    def _changed(self, datagrams: memoryview, step: int) -> tuple[memoryview, int]:
        match self.how:
            case "flips":
                changed = bytearray(datagrams)
                changed[-1] ^= 1
                return memoryview(changed), step
            case "loses":
                return datagrams[step:], step
            case "cuts elsewhere":
                return datagrams, step - 1
        return datagrams, step


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is lost on purpose is not waited for."""
    monkeypatch.setattr(module, "PATIENCE", 0.2)


def test_this_kernel_s_offloads_work() -> None:
    assert check_udp(BOTH) == {}


@pytest.mark.parametrize("how", ["flips", "loses", "cuts elsewhere"])
@pytest.mark.parametrize("fault", BOTH)
def test_damage_is_found_and_blamed_on_the_offload_that_did_it(fault: str, how: str) -> None:
    faulty = type("ThisFault", (Faulty,), {"fault": fault, "how": how})
    (found,) = check_udp(BOTH, make=faulty).items()
    assert found[0] == fault
    assert "datagrams" in found[1]
    assert "127.0.0.1" in found[1]


def test_what_is_not_wanted_is_not_tried() -> None:
    faulty = type("BothFaults", (Faulty,), {"fault": "udp_gso", "how": "flips"})
    assert check_udp(("udp_gro",), make=faulty) == {}
    assert check_udp((), make=faulty) == {}


def test_a_kernel_that_refuses_to_send_a_run_has_failed() -> None:
    class Refusing(UdpSocket):
        def send(self, endpoint: Endpoint, datagrams: memoryview, step: int) -> bool:
            return not self._gso and super().send(endpoint, datagrams, step)

    assert check_udp(BOTH, make=Refusing)["udp_gso"].startswith("the kernel refused to send")


class TestWithoutALoopback:
    pytestmark = NEEDS_KERNEL

    def test_nothing_can_be_tried_and_nothing_fails(self) -> None:
        def work() -> dict[str, str]:
            faulty = type("ThisFault", (Faulty,), {"fault": "udp_gso", "how": "flips"})
            return check_udp(BOTH, make=faulty)

        assert in_namespace(work, "link set lo down") == {}


def test_the_last_datagram_of_a_run_is_shorter() -> None:
    assert 0 < len(module.DATA) % SIZE < SIZE
