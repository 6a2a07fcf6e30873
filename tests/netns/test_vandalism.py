"""Somebody takes apart what a node has made in the kernel: it is put right, and told.

How long that takes and what it costs is measured by `scripts/vandalize`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.labs import LabMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import attempt
from tests.support.vandalism import ACTS, PATIENCE, TUN, Act, Scene, vandalized
from tests.support.waiting import eventually

pytestmark = [*NEEDS_KERNEL, pytest.mark.alone]


@pytest.fixture(scope="module")
def scene(make_module_lab: LabMaker) -> Iterator[Scene]:
    with vandalized(make_module_lab) as made:
        yield made


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_it_is_put_right_and_nothing_else_is_touched(scene: Scene, act: Act) -> None:
    outcome = scene.suffer(act)
    assert outcome.repaired, "nothing was told of it"


def test_a_program_that_does_it_again_and_again_is_named(scene: Scene) -> None:
    route = f"ip route del 10.244.0.0/16 dev {TUN}"
    told = ""

    def fought() -> bool:
        nonlocal told
        attempt(scene.node, *route.split())
        for problem in scene.lab.ask("node1", "status")["problems"]:
            if problem["code"] == "kernel-contested":
                told = problem["why"]
        return "10.244.0.0/16" in told

    eventually(fought, within=PATIENCE)
    eventually(scene.is_right, within=PATIENCE)
