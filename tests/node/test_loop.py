"""The daemon's loop, and only that one, is uvloop."""

from __future__ import annotations

import asyncio
import sys

import pytest

from node.loop import LoopKind, run


async def name_of_loop() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_each_kind_runs_on_its_loop() -> None:
    pytest.importorskip("uvloop")
    assert run(name_of_loop, LoopKind.UVLOOP).startswith("uvloop")
    assert run(name_of_loop, LoopKind.ASYNCIO).startswith("asyncio")


def test_other_loops_of_the_process_stay_plain() -> None:
    run(name_of_loop, LoopKind.UVLOOP)
    assert asyncio.run(name_of_loop()).startswith("asyncio")


def test_without_uvloop_it_runs_on_asyncio(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert run(name_of_loop, LoopKind.UVLOOP).startswith("asyncio")
