"""Asking members what their machines are like, and telling them: repeated, bounded, no errors."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from node.control.handlers import Handlers
from node.machine import read_facts_untrusted
from overlay.effects import FactsAsked, FactsTold
from overlay.errors import StateError
from overlay.types import NodeId
from overlay.views import NodeState
from overlay.wire.messages import Facts, FactsRequest
from tests.support.daemon import NODE2, FakeDaemon, node_view, snapshot

STRANGER = NodeId(bytes([9]) * 32)


def a_daemon(*others: NodeState) -> FakeDaemon:
    daemon = FakeDaemon()
    views = [node_view(n, state=state) for n, state in enumerate(others, start=2)]
    daemon.engine.shot = snapshot(nodes=(node_view(1), *views))
    daemon.handlers = Handlers(daemon)
    return daemon


def said(**facts: object) -> str:
    usual = {"version": "0.1.0", "mtu": 1500, "ip_forward": 1, "time": time.time()}
    return json.dumps(usual | facts)


def doctor(daemon: FakeDaemon, timeout: float = 5.0) -> dict[str, Any]:
    answer: Any = asyncio.run(daemon.handlers.dispatch("doctor", {"timeout": timeout}))  # type: ignore[attr-defined]
    return {one["check"]: one for one in answer["findings"]}


def odd(found: dict[str, Any]) -> dict[str, list[str]]:
    return {check: one["nodes"] for check, one in found.items() if one["state"] == "odd"}


def test_members_that_answer_are_compared() -> None:
    daemon = a_daemon(NodeState.READY)
    daemon.engine.machines[NODE2] = said(mtu=9000)
    assert odd(doctor(daemon)) == {"mtu": ["node2"]}


def test_who_does_not_answer_is_asked_again_and_then_named() -> None:
    daemon = a_daemon(NodeState.DEAD)
    found = doctor(daemon, timeout=2.0)
    assert odd(found) == {"answers": ["node2"]}
    assert found["answers"]["what"] == "node2 (dead) does not answer"
    asked = [message for _, message in daemon.engine.said]
    assert len(asked) > 1
    assert len(set(asked)) == 1


def test_who_has_left_or_was_removed_is_not_asked() -> None:
    daemon = a_daemon(NodeState.LEFT, NodeState.REMOVED)
    assert odd(doctor(daemon)) == {}
    assert daemon.engine.said == []


def test_a_clock_is_compared_with_the_time_the_answer_took() -> None:
    daemon = a_daemon(NodeState.READY)
    daemon.engine.machines[NODE2] = said(time=time.time() + 100)
    assert "clock" in odd(doctor(daemon))


def test_nonsense_from_a_member_is_an_answer_without_facts() -> None:
    for nonsense in ("", "[]", '{"time": "noon", "crossed": 3}', "{" * 1000):
        daemon = a_daemon(NodeState.READY)
        daemon.engine.machines[NODE2] = nonsense
        assert odd(doctor(daemon)).get("version") == ["node2"]


def test_answers_to_other_questions_and_of_strangers_count_for_nothing() -> None:
    daemon = a_daemon(NodeState.READY)
    handlers: Any = daemon.handlers
    handlers.heard(FactsTold(NODE2, 1, said()))

    async def examine() -> Any:
        asking = asyncio.ensure_future(handlers.dispatch("doctor", {"timeout": 0.3}))
        await asyncio.sleep(0)
        ((_, question),) = daemon.engine.said
        handlers.heard(FactsTold(STRANGER, question.request, said()))
        handlers.heard(FactsTold(NODE2, question.request + 1, said()))
        return await asking

    findings = {one["check"]: one for one in asyncio.run(examine())["findings"]}
    assert odd(findings) == {"answers": ["node2"]}


def test_who_asks_is_told_the_time_of_now_and_costs_one_look_a_second(monkeypatch) -> None:
    daemon = a_daemon(NodeState.READY)
    handlers: Any = daemon.handlers
    looks: list[int] = []
    machine = daemon.machine
    monkeypatch.setattr(daemon, "machine", lambda: looks.append(1) or machine())
    before = time.time()
    for request in range(50):
        handlers.heard(FactsAsked(NODE2, request))
    assert len(looks) <= 2
    node, answer = daemon.engine.said[-1]
    assert node == NODE2
    assert isinstance(answer, Facts)
    assert answer.request == 49
    facts = read_facts_untrusted(answer.text)
    assert facts["version"] == "0.1.0"
    assert before <= float(facts["time"]) <= time.time()  # type: ignore[arg-type]


def test_a_member_that_was_removed_meanwhile_is_no_error(monkeypatch) -> None:
    daemon = a_daemon(NodeState.READY)

    def gone(*_: object) -> None:
        raise StateError("no member")

    monkeypatch.setattr(daemon.engine, "say", gone)
    daemon.handlers.heard(FactsAsked(STRANGER, 1))  # type: ignore[attr-defined]
    assert odd(doctor(daemon, timeout=0.1)) == {"answers": ["node2"]}


def test_many_members_are_asked_a_part_at_a_time() -> None:
    daemon = a_daemon(*[NodeState.READY] * 150)
    doctor(daemon, timeout=0.2)
    first = [node for node, message in daemon.engine.said if isinstance(message, FactsRequest)]
    assert 0 < len(first) == len(set(first)) < 150
