from __future__ import annotations

from dataclasses import replace

import pytest

from node.kernel import insides as insides_module
from node.kernel.errors import KernelError
from node.kernel.insides import Insides
from node.kernel.model import veth_name
from node.kernel.pods import PodEnd
from node.kernel.watch import News
from overlay.attachment import Attachment
from tests.support.views import pod_view

PODS = {f"pod1{number}": pod_view(1, number) for number in range(1, 8)}
NUMBERS = {veth_name(name): number for number, name in enumerate(sorted(PODS))}


class Namespaces:
    """What is wrong inside, by pod; and who was looked into."""

    def __init__(self) -> None:
        self.looks: list[str] = []
        self.thorough: list[bool] = []
        self.lacking: dict[str, list[str]] = {}
        self.refusing: dict[str, KernelError] = {}
        self.closed: dict[str, KernelError] = {}

    def mend(self, end: PodEnd, mtu: int, *, thorough: bool) -> tuple[list[str], list[KernelError]]:
        assert mtu == 1400
        self.looks.append(end.pod)
        self.thorough.append(thorough)
        if end.pod in self.closed:
            raise self.closed[end.pod]
        refused = [self.refusing[end.pod]] if end.pod in self.refusing else []
        return self.lacking.pop(end.pod, []), refused


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Namespaces:
    made = Namespaces()
    monkeypatch.setattr(insides_module.pods, "mend", made.mend)
    return made


def test_news_of_a_namespace_lead_into_it_and_nowhere_else(world: Namespaces) -> None:
    world.lacking["pod12"] = ["add address", "add route"]
    told = Insides(1400).look(PODS, NUMBERS, News(inside=frozenset({1})))
    assert (world.looks, world.thorough) == (["pod12"], [False])
    assert told == ["add address in pod pod12", "add route in pod pod12"]


def test_lost_news_lead_everywhere(world: Namespaces) -> None:
    Insides(1400).look(PODS, NUMBERS, News(inside=None))
    assert world.looks == sorted(PODS)


def test_a_sweep_comes_to_every_pod_in_turn(world: Namespaces) -> None:
    insides = Insides(1400)
    for _ in range(7):
        insides.look(PODS, NUMBERS, News(sweep=2))
    assert sorted(world.looks) == sorted([*PODS, *PODS])
    assert all(world.thorough), "nobody announced anything, so nothing can go in circles"
    insides.look({"pod13": PODS["pod13"]}, NUMBERS, News(sweep=2))
    assert world.looks[-1] == "pod13", "others have gone meanwhile"


def test_what_is_refused_is_named_until_it_is_right(world: Namespaces) -> None:
    insides = Insides(1400)
    world.refusing["pod12"] = KernelError("add route 0.0.0.0/0 dev eth0: file exists")
    insides.look(PODS, NUMBERS, News(inside=frozenset({1})))
    (problem,) = insides.problems.values()
    assert (problem.code, "pod12" in problem.what) == ("pod-changed", True)
    assert problem.fix
    del world.refusing["pod12"]
    insides.look(PODS, NUMBERS, News())
    assert insides.problems == {}, "it was looked at again though there is no news"


def test_a_pod_that_has_gone_is_no_problem_any_more(world: Namespaces) -> None:
    insides = Insides(1400)
    world.refusing["pod12"] = KernelError("no")
    insides.look(PODS, NUMBERS, News(inside=frozenset({1})))
    insides.look({"pod13": PODS["pod13"]}, NUMBERS, News())
    assert insides.problems == {}


def test_a_namespace_that_has_lost_its_name_is_left_alone(world: Namespaces) -> None:
    insides = Insides(1400)
    world.closed["pod12"] = KernelError("there is no namespace", "", "no-netns")
    world.closed["pod13"] = KernelError("permission denied", "run as root", "eperm")
    insides.look(PODS, NUMBERS, News(inside=None))
    assert list(insides.problems) == ["pod13"]


def test_what_a_runtime_configures_is_its_own_affair(world: Namespaces) -> None:
    handed = {"pod11": replace(PODS["pod11"], attachment=Attachment(handed=True))}
    Insides(1400).look(handed, NUMBERS, News(inside=None, sweep=9))
    assert world.looks == []
