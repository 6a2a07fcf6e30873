from __future__ import annotations

import asyncio
from typing import Any

import pytest

from node.errors import NodeError
from node.kernel.errors import KernelError
from node.kernel.model import veth_name
from node.kernel.nft import Firewall
from overlay.errors import StateError
from tests.support.keeping import Bench
from tests.support.views import pod_view

PODS = [pod_view(1, number, netns=f"/run/netns/pod1{number}") for number in range(1, 9)]
POD = PODS[0]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(monkeypatch)
    made.netlink.namespaces = {pod.netns for pod in PODS}
    return made


def test_pods_come_after_the_first_apply(bench: Bench) -> None:
    with pytest.raises(StateError, match="apply comes first"):
        asyncio.run(bench.manager.attach_pod(POD))


def test_pods_that_wait_at_the_same_time_share_rules_and_comparison(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.apply()
    held: list[str] = []
    monkeypatch.setattr(Firewall, "hold", lambda _, rules: bool(held.append(rules)))
    before = bench.netlink.reads

    async def attach_all() -> None:
        await asyncio.gather(*(bench.manager.attach_pod(pod) for pod in PODS))

    asyncio.run(attach_all())
    assert (len(held), bench.netlink.reads - before) == (1, 1)
    assert {veth_name(pod.name) for pod in PODS} <= bench.netlink.kernel.links.keys()

    async def replace_half() -> None:
        going = [bench.manager.detach_pod(pod.name) for pod in PODS[:4]]
        await asyncio.gather(*going, *(bench.manager.attach_pod(pod) for pod in PODS[4:]))

    asyncio.run(replace_half())
    # One run for those that come, which do not wait for those that go, and one for these.
    assert (len(held), bench.netlink.reads - before) == (3, 3)
    assert bench.netlink.kernel.links.keys() == {
        "muslin0",
        *(veth_name(pod.name) for pod in PODS[4:]),
    }


def test_a_pod_that_comes_does_not_wait_for_links_that_are_being_removed(bench: Bench) -> None:
    bench.apply()

    async def replace_one() -> None:
        await bench.manager.attach_pod(POD)
        removed = asyncio.Event()

        async def slow(_: object, pods: list[str]) -> None:
            await removed.wait()
            bench.netlink.detach_together(None, pods)

        bench.manager._removing.call = slow  # type: ignore[assignment, method-assign]
        going = asyncio.ensure_future(bench.manager.detach_pod(POD.name))
        await asyncio.sleep(0)
        async with asyncio.timeout(30.0):
            await bench.manager.attach_pod(PODS[1])
        # Nobody else removes it meanwhile, nor makes it anew.
        assert veth_name(POD.name) in bench.netlink.kernel.links
        assert not going.done()
        removed.set()
        await going

    asyncio.run(replace_one())
    assert bench.netlink.kernel.links.keys() == {"muslin0", veth_name(PODS[1].name)}
    assert bench.apply(PODS[1]) == ()


def test_one_pod_of_a_run_that_fails_does_not_fail_the_others(bench: Bench) -> None:
    bench.apply()
    bench.netlink.namespaces -= {PODS[2].netns}

    async def attach_all() -> list[Any]:
        waiting = (bench.manager.attach_pod(pod) for pod in PODS)
        return await asyncio.gather(*waiting, return_exceptions=True)

    told = asyncio.run(attach_all())
    assert [isinstance(said, KernelError) for said in told] == [n == 2 for n in range(8)]
    assert veth_name(PODS[2].name) not in bench.netlink.kernel.links
    assert bench.apply(*PODS[:2], *PODS[3:]) == ()


def test_changes_of_one_pod_keep_their_order(bench: Bench) -> None:
    bench.apply()

    async def back_and_forth() -> None:
        await asyncio.gather(
            bench.manager.attach_pod(POD),
            bench.manager.detach_pod(POD.name),
            bench.manager.attach_pod(POD),
        )

    asyncio.run(back_and_forth())
    assert veth_name(POD.name) in bench.netlink.kernel.links


def test_a_defect_leaves_nobody_waiting(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.apply()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    bench.manager._keeper.change = broken  # type: ignore[assignment, method-assign]

    async def attach() -> None:
        async with asyncio.timeout(30.0):
            await bench.manager.attach_pod(POD)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(attach())
    assert "task.crashed" in caplog.text


def test_masquerade_is_refused_where_there_is_no_nft(bench: Bench) -> None:
    asyncio.run(bench.manager.check_egress())
    bench.manager.set_masquerade(True)
    with pytest.raises(NodeError) as caught:
        asyncio.run(bench.manager.check_egress())
    assert caught.value.code == "no-nft"
    assert [problem.code for problem in bench.apply()] == ["egress-off"]
    bench.manager.set_masquerade(False)
    assert bench.apply() == ()
