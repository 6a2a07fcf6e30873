from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from node.kernel.errors import KernelError
from node.kernel.model import KernelState, Limit, Link, is_pod_link, queue_name, veth_name
from node.kernel.netlink import Netlink
from node.kernel.queues import apply_limit, read_limits
from node.kernel.reconcile import DeleteLimit, SetLimit
from tests.support.namespace import Namespace, ip
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import attempt

VETH, QUEUE = veth_name("a"), queue_name("a")
TO = Limit(VETH, VETH, 12_500_000, 70_000, 695_000)
FROM = Limit(VETH, QUEUE, 1_250_000, 12_500, 75_000)


def test_a_kernel_without_traffic_control_has_no_limits() -> None:
    def refuse(kind: int, body: bytes) -> list[bytes]:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    assert read_limits(refuse, {1: VETH}) == frozenset()

    def fail(kind: int, body: bytes) -> list[bytes]:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    with pytest.raises(PermissionError):
        read_limits(fail, {1: VETH})


@pytest.mark.parametrize("limit", [TO, FROM], ids=["to", "from"])
@pytest.mark.parametrize("code", [errno.ENOENT, errno.EOPNOTSUPP])
def test_a_kernel_without_a_part_says_which_it_takes(limit: Limit, code: int) -> None:
    class Poor:
        def link(self, *_: object, **__: object) -> None:
            raise NetlinkError(code, "unknown device type")

        tc = link

    numbers = {VETH: 1, QUEUE: None}
    with pytest.raises(KernelError) as caught:
        apply_limit(Poor(), SetLimit(limit), lambda name: numbers[name])
    assert caught.value.why == f"set the {limit}: the kernel has no part for it"
    assert "ifb" in caught.value.fix


class TestOnARealKernel:
    pytestmark = NEEDS_KERNEL

    @pytest.fixture
    def inside(self) -> Iterator[Namespace]:
        with Namespace() as namespace:
            namespace.run(ip, f"link add {VETH} type veth peer name far", f"link set {VETH} up")
            yield namespace

    @staticmethod
    def limits(*changes: SetLimit | DeleteLimit) -> frozenset[Limit]:
        """What is there after these changes."""
        with Netlink() as netlink:
            for change in changes:
                netlink.apply(change)
            state: KernelState = netlink.read(lambda link: is_pod_link(link.name), ())
            return state.limits

    def test_limits_are_made_read_changed_and_taken_away(self, inside: Namespace) -> None:
        assert inside.run(self.limits) == set()
        assert inside.run(self.limits, SetLimit(TO), SetLimit(FROM)) == {TO, FROM}
        assert inside.run(self.limits, SetLimit(TO), SetLimit(FROM)) == {TO, FROM}
        other = Limit(VETH, VETH, 1000, 3_044, 15_000), Limit(VETH, QUEUE, 2000, 3_044, 15_000)
        assert inside.run(self.limits, *map(SetLimit, other)) == set(other)
        assert inside.run(self.limits, DeleteLimit(other[0])) == {other[1]}
        assert inside.run(self.limits, DeleteLimit(other[1]), DeleteLimit(other[1])) == set()

    def test_the_link_to_wait_at_says_whose_it_is_from_the_start(self, inside: Namespace) -> None:
        def made() -> Link:
            with Netlink() as netlink:
                netlink.apply(SetLimit(FROM, "a"))
                return netlink.read(lambda link: is_pod_link(link.name), ()).links[QUEUE]

        link = inside.run(made)
        assert (link.up, link.alias) == (True, "a")

    @pytest.mark.parametrize(
        "harm",
        [
            f"tc qdisc del dev {QUEUE} root",
            f"tc qdisc replace dev {QUEUE} root pfifo",
            f"tc qdisc del dev {VETH} ingress",
            f"tc filter del dev {VETH} ingress",
            f"ip link del {QUEUE}",
        ],
    )
    def test_half_a_limit_is_none_and_is_made_whole(self, inside: Namespace, harm: str) -> None:
        inside.run(self.limits, SetLimit(TO), SetLimit(FROM))
        done = attempt(inside.path, *harm.split())
        assert done.returncode == 0, done.stderr
        assert inside.run(self.limits) == {TO}
        assert inside.run(self.limits, SetLimit(FROM)) == {TO, FROM}
        if "link del" in harm:  # made anew: the way leads to that one, and to no other
            shown = attempt(inside.path, "tc", "filter", "show", "dev", VETH, "ingress").stdout
            assert shown.count("mirred") == 1

    def test_queues_of_others_are_none_of_ours(self, inside: Namespace) -> None:
        for words in (
            f"tc qdisc add dev {VETH} root tbf rate 10mbit burst 12500 limit 75000",
            f"tc qdisc add dev {VETH} ingress",
        ):
            done = attempt(inside.path, *words.split())
            assert done.returncode == 0, done.stderr
        assert inside.run(self.limits) == set()
        assert inside.run(self.limits, SetLimit(TO), SetLimit(FROM)) == {TO, FROM}
