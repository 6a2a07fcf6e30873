"""Turns: shared by changes of different pods, never by one who wants to be alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from node.control.turns import Turns

MORE = 5
"""Rounds of the loop after which everything that can go on has gone on."""


async def settle() -> None:
    for _ in range(MORE):
        await asyncio.sleep(0)


class Stage:
    """Tasks that take turns and stay until they are let go."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.inside: list[str] = []
        self._go: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def enter(self, name: str, key: str | None) -> None:
        self._go[name] = asyncio.Event()
        self.tasks[name] = asyncio.ensure_future(self._act(name, key))
        await settle()

    async def _act(self, name: str, key: str | None) -> None:
        async with self.turns.alone() if key is None else self.turns.sharing(key):
            self.inside.append(name)
            try:
                await self._go[name].wait()
            finally:
                self.inside.remove(name)

    async def leave(self, name: str) -> None:
        self._go[name].set()
        await settle()


def play(scene: Callable[[Stage], Awaitable[None]]) -> None:
    async def main() -> None:
        await scene(Stage())

    asyncio.run(main())


def test_changes_of_different_pods_share_a_turn_and_those_of_one_do_not() -> None:
    async def scene(stage: Stage) -> None:
        for name, key in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("c1", "c")):
            await stage.enter(name, key)
        assert stage.inside == ["a1", "b1", "c1"]
        await stage.leave("a1")
        assert stage.inside == ["b1", "c1", "a2"]

    play(scene)


def test_who_is_alone_has_nobody_beside_and_turns_come_in_order() -> None:
    async def scene(stage: Stage) -> None:
        await stage.enter("a1", "a")
        await stage.enter("all", None)
        await stage.enter("b1", "b")
        assert stage.inside == ["a1"]
        await stage.leave("a1")
        assert stage.inside == ["all"]
        await stage.enter("all2", None)
        await stage.leave("all")
        assert stage.inside == ["b1"]
        await stage.leave("b1")
        assert stage.inside == ["all2"]

    play(scene)


def test_who_gives_up_keeps_nobody_waiting() -> None:
    async def scene(stage: Stage) -> None:
        await stage.enter("a1", "a")
        await stage.enter("all", None)
        await stage.enter("b1", "b")
        stage.tasks["all"].cancel()
        await settle()
        assert stage.inside == ["a1", "b1"]
        stage.tasks["a1"].cancel()
        await stage.enter("a2", "a")
        assert stage.inside == ["b1", "a2"]

    play(scene)


def test_one_whose_turn_comes_as_he_gives_up_hands_it_on() -> None:
    async def scene(stage: Stage) -> None:
        for key in ("a", None):
            await stage.enter(f"first {key}", key)
            await stage.enter(f"second {key}", key)
            await stage.enter(f"third {key}", key)
            stage._go[f"first {key}"].set()
            await asyncio.sleep(0)  # the second has been granted its turn and not begun
            stage.tasks[f"second {key}"].cancel()
            await settle()
            assert stage.inside == [f"third {key}"]
            await stage.leave(f"third {key}")

    play(scene)


def test_after_the_end_nothing_begins() -> None:
    async def scene(stage: Stage) -> None:
        await stage.enter("a1", "a")
        closing = asyncio.ensure_future(stage.turns.close())
        await stage.enter("b1", "b")
        assert not closing.done()
        await stage.leave("a1")
        assert closing.done()
        assert stage.inside == []
        stage.tasks["b1"].cancel()
        await settle()

    play(scene)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_all_get_their_turn_and_none_is_disturbed(seed: int) -> None:
    rng = random.Random(seed)

    async def main() -> None:
        turns, held, done = Turns(), [], []

        async def act(number: int) -> None:
            key = rng.choice(["a", "b", "c", None])
            async with turns.alone() if key is None else turns.sharing(key):
                assert None not in held
                assert key not in held
                assert key is not None or not held
                held.append(key)
                try:
                    for _ in range(rng.randrange(4)):
                        await asyncio.sleep(0)
                finally:
                    held.remove(key)
            done.append(number)

        tasks = [asyncio.ensure_future(act(number)) for number in range(60)]
        for _ in range(20):
            await asyncio.sleep(0)
            rng.choice(tasks).cancel()
        said = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [one for one in said if one and not isinstance(one, asyncio.CancelledError)]
        assert len(done) == said.count(None)
        async with asyncio.timeout(30):
            await turns.close()

    asyncio.run(main())
