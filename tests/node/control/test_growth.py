"""Who asks for a pod waits for the block that was asked for, and not for ever."""

from __future__ import annotations

import asyncio

import pytest

from node.control.growth import GROWTH_LOOKS
from node.control.handlers import Handlers
from overlay.errors import RefusedError
from overlay.views import Problem
from tests.support.control import ask
from tests.support.daemon import snapshot


def test_who_waits_for_a_block_lets_others_have_their_turn(daemon, monkeypatch) -> None:
    monkeypatch.setattr("node.control.growth.GROWTH_LOOK", 0.0)
    daemon.engine.shot = snapshot(
        problems=(Problem("no-free-address", "full", "node2 was asked", "wait"),)
    )
    add = daemon.engine.add_pod

    def full_until_web_is_gone(name: str, *arguments: object, **said: object) -> object:
        if any(pod.name == "web" for pod in daemon.engine.shot.pods):
            raise RefusedError("no-free-address", "every address is taken")
        return add(name, *arguments, **said)

    async def main() -> None:
        handlers = Handlers(daemon)
        adding = handlers.dispatch("pod.add", {"name": "new"})
        await asyncio.gather(adding, handlers.dispatch("pod.del", {"name": "web"}))

    monkeypatch.setattr(daemon.engine, "add_pod", full_until_web_is_gone)
    asyncio.run(main())
    assert daemon.attached == ["new"]


def test_a_pod_waits_for_the_block_that_was_asked_for(daemon, monkeypatch) -> None:
    monkeypatch.setattr("node.control.growth.GROWTH_LOOK", 0.0)
    low = Problem("no-free-address", "full", "node2 was asked", "wait")
    daemon.engine.shot = snapshot(problems=(low,))
    real, tries = daemon.engine.add_pod, iter([True] * 5)

    def add_pod(*arguments: object, **said: object) -> object:
        if next(tries, False):
            raise RefusedError("no-free-address", "every address is taken")
        return real(*arguments)

    monkeypatch.setattr(daemon.engine, "add_pod", add_pod)
    assert ask(daemon, "pod.add", name="late")["name"] == "late"
    daemon.engine.shot = snapshot()  # nothing is on its way: no reason to wait
    tries = iter([True])
    with pytest.raises(RefusedError, match="every address"):
        ask(daemon, "pod.add", name="later")
    daemon.engine.shot = snapshot(problems=(low,))
    tries = iter([True] * (GROWTH_LOOKS + 1))
    with pytest.raises(RefusedError, match="every address"):
        ask(daemon, "pod.add", name="never")


def test_waiting_does_not_look_at_the_whole_cluster_again_and_again(daemon, monkeypatch) -> None:
    monkeypatch.setattr("node.control.growth.GROWTH_LOOK", 0.0)
    daemon.engine.shot = snapshot(
        problems=(Problem("no-free-address", "full", "node2 was asked", "wait"),)
    )
    looked: list[float] = []

    def full(*_: object, **said: object) -> object:
        raise RefusedError("no-free-address", "every address is taken")

    monkeypatch.setattr(daemon.engine, "add_pod", full)
    monkeypatch.setattr(daemon.engine, "snapshot", looked.append)
    with pytest.raises(RefusedError, match="every address"):
        ask(daemon, "pod.add", name="new", netns="/ns/new")
    assert looked == []
