"""A real member that lies, in a lab: refused, counted, named; who is lied about does not notice.

    node2-pod1 (the victim) <==== TCP, all the time ====> node3-pod1 (who is lied to)
    node1 (bystander, founder)          node4: the daemon, with valid keys, and lies on order

The lies are those of `tests/sim/test_insider.py`, told by the very same functions.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest

from node.errors import NodeError
from node.lab.verbs import lab_kill
from overlay.complaints import COMPLAINTS_MAX
from tests.sim.insider import BYSTANDER, TOLD, VICTIM
from tests.sim.test_insider import LIES
from tests.sim.test_insider_floods import FLOODS
from tests.support.labs import Lab, LabMaker
from tests.support.mallory import LIAR, Mallory
from tests.support.privileged import NEEDS_KERNEL
from tests.support.streams import Stream
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

WITHIN = 60.0
"""Seconds. Virtual time shows that it takes five; how busy the machine is shows nothing."""

HONEST = (BYSTANDER, VICTIM, TOLD)


class Scene:
    """The lab, the lying daemon in it, and the stream between the others."""

    def __init__(self, lab: Lab, mallory: Mallory, stream: Stream) -> None:
        self.lab = lab
        self.mallory = mallory
        self.stream = stream

    def problems(self, node: str) -> list[tuple[str, str, str]]:
        """Code, what and why, of all that a node's status says; nothing if it is too busy."""
        try:
            status = self.lab.ask(node, "status")
        except NodeError:
            return []
        shown = [*status["problems"], *status["notices"]]  # what it has seen, what others say
        return [(one["code"], one["what"], one["why"]) for one in shown]

    def times(self, node: str, code: str) -> int:
        """How often a node has seen the liar do this."""
        for found, what, why in self.problems(node):
            if found == f"member-{code}" and LIAR in what:
                counted = re.match(r"(\d+) times", why)
                return int(counted[1]) if counted else 1
        return 0

    def is_named(self, code: str) -> bool:
        """Whether everybody who has not seen it says who has; a record names so many things."""
        said = re.compile(rf"\b{TOLD}\b.* complains? of {LIAR}: (.*)")
        for node in HONEST:
            found = [said.search(what) for _, what, _ in self.problems(node)]
            codes = {one[1] for one in found if one}
            if not (self.times(node, code) or code in codes or len(codes) == COMPLAINTS_MAX):
                return False
        return True

    def routes(self) -> dict[str, set[tuple[str, str]]]:
        """What the honest nodes route where."""
        return {
            node: {(row["prefix"], row["node"]) for row in self.lab.get(node, "routes")}
            for node in HONEST
        }

    def states(self) -> set[tuple[str, str]]:
        """How each honest node is, in the eyes of the others."""
        return {
            (row["name"], row["state"])
            for node in HONEST
            for row in self.lab.get(node, "nodes")
            if row["name"] in HONEST
        }


@pytest.fixture(scope="module")
def scene(make_module_lab: LabMaker) -> Iterator[Scene]:
    lab = make_module_lab(nodes=4, pods=1)
    lab_kill(lab.name, LIAR, signal.SIGTERM, store=lab.store)
    ends = (lab[f"{VICTIM}-pod1"], lab[f"{TOLD}-pod1"])
    with Mallory(lab.info) as mallory, Stream(*ends) as stream:
        eventually(lambda: talks(lab), within=WITHIN)
        yield Scene(lab, mallory, stream)


def talks(lab: Lab) -> bool:
    """Whether everybody has a session with the liar again."""
    return all(LIAR in {row["node"] for row in lab.get(node, "sessions")} for node in HONEST)


@pytest.fixture
def undisturbed(scene: Scene) -> Iterator[Scene]:
    """Whatever is said meanwhile: routes and members are what they were, and packets flow."""
    before = scene.routes()
    yield scene
    assert scene.routes() == before
    assert scene.states() == {(name, "ready") for name in HONEST}
    scene.stream.moves()


MORE = [
    ("a_network_without_consent", "route-not-certified"),
    ("a_default_route", "route-forbidden"),
    ("half_of_the_victims_block", "route-forbidden"),
    ("an_authority_of_its_own", "forged-link"),
]
"""What is proven elsewhere in the simulator."""


@pytest.mark.parametrize(("lie", "code"), [*((lie.__name__, code) for lie, code in LIES), *MORE])
def test_a_lie_is_refused_counted_and_named_everywhere(
    undisturbed: Scene, lie: str, code: str
) -> None:
    before = undisturbed.times(TOLD, code)
    undisturbed.mallory.does(lie)
    eventually(lambda: undisturbed.times(TOLD, code) > before, within=WITHIN)
    eventually(lambda: undisturbed.is_named(code), within=WITHIN)


def test_what_the_victim_said_before_is_no_news(undisturbed: Scene) -> None:
    lab = undisturbed.lab
    undisturbed.mallory.does("remember_the_victims_record")
    version = f"{VICTIM}-extra"
    lab.ask(VICTIM, "pod.add", name=version)
    eventually(lambda: pods_of_the_victim(lab) == {f"{VICTIM}-pod1", version}, within=WITHIN)
    undisturbed.mallory.does("the_victims_old_record")
    undisturbed.mallory.does(LIES[0][0].__name__)  # and what is said after it is heard
    before = undisturbed.times(TOLD, LIES[0][1])
    undisturbed.mallory.does(LIES[0][0].__name__)
    eventually(lambda: undisturbed.times(TOLD, LIES[0][1]) > before, within=WITHIN)
    assert pods_of_the_victim(lab) == {f"{VICTIM}-pod1", version}


def pods_of_the_victim(lab: Lab) -> set[str]:
    return {row["name"] for row in lab.get(TOLD, "pods") if row["node"] == VICTIM}


def test_who_is_said_to_be_dead_contradicts_and_loses_nothing(undisturbed: Scene) -> None:
    lab = undisturbed.lab
    before = refuted(lab)
    undisturbed.mallory.does("victims_death")
    eventually(lambda: refuted(lab) > before, within=WITHIN)
    ready = {(name, "ready") for name in HONEST}
    eventually(lambda: undisturbed.states() == ready, within=WITHIN)


def refuted(lab: Lab) -> int:
    return int(lab.ask(VICTIM, "status")["gossip"]["refuted"])


def test_a_block_in_the_liars_record_is_the_victims_all_the_same(undisturbed: Scene) -> None:
    undisturbed.mallory.does("victims_block_in_its_record")
    code, lie = LIES[0][1], LIES[0][0].__name__
    before = undisturbed.times(TOLD, code)
    undisturbed.mallory.does(lie)
    eventually(lambda: undisturbed.times(TOLD, code) > before, within=WITHIN)
    owner = {row["node"] for row in undisturbed.lab.get(TOLD, "blocks") if row["state"] == "in-use"}
    assert owner == {*HONEST, LIAR}


def test_a_block_that_is_signed_over_twice_names_who_did_it(scene: Scene) -> None:
    """From here on the liar has no block."""
    scene.mallory.does("two_deeds")

    def is_named() -> bool:
        """By whoever has seen both deeds: where the one that wins was first, that is all."""
        return any(
            code == "deed-conflict" and LIAR in what
            for node in HONEST
            for code, what, _ in scene.problems(node)
        )

    eventually(is_named, within=WITHIN)
    scene.stream.moves()
    assert {row["name"] for row in scene.lab.get(TOLD, "nodes")} == {*HONEST, LIAR}


@pytest.mark.parametrize(
    ("flood", "code"),
    [(say.__name__, "gossip-flood") for say, _ in FLOODS] + [("new_records", "record-flood")],
)
def test_who_says_too_much_is_cut_off_and_named(undisturbed: Scene, flood: str, code: str) -> None:
    before = undisturbed.lab.drops(TOLD)["flooded"], undisturbed.times(TOLD, code)
    undisturbed.mallory.does(flood)
    try:
        eventually(lambda: undisturbed.times(TOLD, code) > before[1], within=2 * WITHIN)
        eventually(lambda: undisturbed.is_named(code), within=WITHIN)
        undisturbed.stream.moves()
    finally:
        undisturbed.mallory.does("peace")
    assert code != "gossip-flood" or undisturbed.lab.drops(TOLD)["flooded"] > before[0]


def test_a_jump_of_its_own_version_is_named(scene: Scene) -> None:
    """From here on it cannot write another record that counts."""
    scene.mallory.does("a_jump_of_its_version")
    try:
        eventually(lambda: scene.times(TOLD, "version-jump"), within=WITHIN)
    finally:
        scene.mallory.does("peace")
    eventually(lambda: scene.is_named("version-jump"), within=WITHIN)
    scene.stream.moves()
