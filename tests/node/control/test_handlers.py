"""What each method does, and what is left when it fails."""

from __future__ import annotations

import asyncio

import pytest

from node.control.handlers import Handlers
from node.control.schema import ControlError
from node.errors import NodeError
from overlay.effects import Left, Persist
from overlay.errors import RefusedError
from overlay.invariants.watch import LOOK_INTERVAL
from overlay.views import Problem
from tests.sim.worlds import settled
from tests.support.control import ask
from tests.support.daemon import snapshot


def test_status_and_every_kind_are_shown(daemon) -> None:
    assert ask(daemon, "status")["node"] == "node1"
    for kind in ("nodes", "pods", "routes", "sessions", "blocks"):
        assert isinstance(ask(daemon, "get", kind=kind), list)
    assert daemon.refreshed == 2, "the status and the sessions are those of all lanes, now"


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("fly", {}, "unknown-method"),
        ("get", {"kind": "cows"}, "unknown-kind"),
        ("get", {}, "bad-request"),
        ("get", {"kind": 5}, "bad-request"),
        ("pod.add", {}, "bad-request"),
        ("pod.add", {"name": ""}, "bad-request"),
        ("pod.add", {"name": "x", "ip": "10.1"}, "bad-request"),
        ("token", {"ttl": "1h"}, "bad-request"),
        ("token", {"ttl": True}, "bad-request"),
        ("token", {"ttl": 0}, "bad-request"),
        ("token", {"ttl": 1e9}, "bad-request"),
        ("ping", {"target": "web", "version": 5}, "bad-request"),
        ("pod.del", {"name": "db"}, "not-local"),
    ],
)
def test_a_wrong_request_has_its_code_and_changes_nothing(daemon, method, params, code) -> None:
    with pytest.raises(ControlError) as caught:
        ask(daemon, method, **params)
    assert caught.value.code == code
    assert daemon.engine.calls == []
    assert daemon.kept == []


def test_a_token_is_shown_once_it_is_stored(daemon) -> None:
    assert ask(daemon, "token", ttl=60) == {"token": "muslin1-60", "ttl": 60.0}
    assert ask(daemon, "token")["ttl"] == 3600.0
    daemon.disk_full = True
    with pytest.raises(NodeError):
        ask(daemon, "token")


def test_closing_waits_for_the_change_that_has_begun_and_lets_no_other_begin(daemon) -> None:
    async def main() -> None:
        attach, gate, began = daemon.attach_pod, asyncio.Event(), asyncio.Event()

        async def slow(pod) -> None:
            began.set()
            await gate.wait()
            await attach(pod)

        daemon.attach_pod = slow
        handlers = Handlers(daemon)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(handlers.dispatch("pod.add", {"name": "first"}))
            await began.wait()
            closing = tasks.create_task(handlers.close())
            await asyncio.sleep(0)
            late = tasks.create_task(handlers.dispatch("pod.add", {"name": "late"}))
            await asyncio.sleep(0)
            assert not closing.done()
            gate.set()
            await closing
            assert daemon.attached == ["first"]
            await asyncio.sleep(0)
            late.cancel()

    asyncio.run(main())
    assert daemon.attached == ["first"]
    assert [call[1] for call in daemon.engine.calls] == ["first"]


def test_a_pod_of_another_node_is_tried_leg_by_leg(daemon) -> None:
    answer = ask(daemon, "ping", target="db")
    assert answer["legs"] == [
        {"leg": "overlay", "to": "node2", "rtt": 0.0005},
        {"leg": "pod", "to": "10.244.1.2", "rtt": 0.001},
    ]
    assert (answer["target"], answer["path"]) == ("node2/db", "direct")


def test_a_lost_leg_is_null(daemon) -> None:
    daemon.lose_probes = True
    daemon.echo = None
    answer = ask(daemon, "ping", target="node2", timeout=0.01)
    assert [(leg["leg"], leg["rtt"]) for leg in answer["legs"]] == [
        ("overlay", None),
        ("node", None),
    ]


def test_a_local_pod_has_one_leg(daemon) -> None:
    assert [leg["leg"] for leg in ask(daemon, "ping", target="web")["legs"]] == ["pod"]


def test_leaving_detaches_the_pods_and_stops(daemon) -> None:
    daemon.attached = ["web"]
    assert ask(daemon, "leave") == {"confirmed": 1}
    assert daemon.attached == []
    assert daemon.stopping


def test_a_node_that_has_left_stops_although_the_kernel_refuses(daemon) -> None:
    async def refuse(_: str) -> None:
        raise NodeError("the kernel is busy")

    daemon.detach_pod = refuse
    with pytest.raises(NodeError, match="busy"):
        ask(daemon, "leave")
    assert daemon.stopping


def test_leaving_that_takes_too_long_is_an_error(daemon, monkeypatch) -> None:
    monkeypatch.setattr("node.control.handlers.LEAVE_TIMEOUT", 0.01)
    daemon.engine.leave = lambda now: []
    with pytest.raises(NodeError, match="takes too long"):
        ask(daemon, "leave")
    assert not daemon.stopping


def test_all_who_ask_to_leave_get_the_answer(daemon) -> None:
    async def main() -> list[object]:
        daemon.handlers = handlers = Handlers(daemon)
        daemon.engine.leave = lambda now: []

        async def tell() -> None:
            for _ in range(10):  # until both wait
                await asyncio.sleep(0)
            handlers.left(Left(3))

        asked = (handlers.dispatch("leave", {}) for _ in range(2))
        return await asyncio.gather(*asked, tell())

    assert asyncio.run(main()) == [{"confirmed": 3}, {"confirmed": 3}, None]
    assert daemon.stopping


def test_a_refused_request_to_leave_waits_for_nothing(daemon) -> None:
    async def main() -> bool:
        daemon.handlers = handlers = Handlers(daemon)
        daemon.engine.leave = lambda now: [Persist((("k", b""),))]
        daemon.disk_full = True
        with pytest.raises(NodeError, match="no space"):
            await handlers.dispatch("leave", {})
        return handlers.left(Left(3))

    assert asyncio.run(main()) is False  # so the daemon ends by itself when it has left


def test_a_removal_is_stored_and_says_who_does_not_know_yet(daemon) -> None:
    assert ask(daemon, "remove", name="node9") == {"name": "node9", "waits": None}
    assert daemon.kept == [b"removal"]
    problem = Problem("reclaim-waits", "2 blocks", "not acknowledged by node3", "wait")
    daemon.engine.shot = snapshot(problems=(problem,))
    answer = ask(daemon, "remove", name="node2", force=True)
    assert answer["waits"] == "not acknowledged by node3"
    assert daemon.engine.calls[-1] == ("remove", "node2", True)
    with pytest.raises(RefusedError, match="ready"):
        ask(daemon, "remove", name="node2")
    with pytest.raises(ControlError, match="force"):
        ask(daemon, "remove", name="node2", force="yes")


def test_stop_stops(daemon) -> None:
    ask(daemon, "stop")
    assert daemon.stopping


def test_a_claim_is_stored_before_it_is_said(daemon) -> None:
    assert ask(daemon, "ipam.claim") == {"node": "node1"}
    daemon.disk_full = True
    with pytest.raises(NodeError):
        ask(daemon, "ipam.claim")


def test_a_broken_invariant_is_a_problem_in_the_status_with_its_evidence(daemon) -> None:
    world = settled(1, check=False)
    engine = world["node1"].engine
    engine.ledger.tun_in += 1  # a packet of which nobody knows what became
    engine.watch.tend(world.now + LOOK_INTERVAL)
    daemon.engine.shot = engine.snapshot(world.now)
    status = ask(daemon, "status")
    (problem,) = status["problems"]
    assert problem["code"] == "invariant-books-balance"
    assert "things were read" in problem["why"]
    assert status["state"] == "problem"
