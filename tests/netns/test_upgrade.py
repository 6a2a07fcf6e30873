"""A daemon is replaced under traffic: nothing is reset, and hardly anything lost.

`scripts/upgrade` measures the same for longer and prints how long packets waited.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.lab.processes import start_daemon
from node.lab.verbs import lab_start
from tests.support.labs import Lab, LabMaker
from tests.support.manager import Manager
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import run
from tests.support.upgrades import NODE, Service, kill, loaded, moved, take_over
from tests.support.waiting import eventually

pytestmark = [
    *NEEDS_KERNEL,
    pytest.mark.alone,
    pytest.mark.skipif(shutil.which("iperf3") is None, reason="needs iperf3"),
]

MOST_LOST = 5
"""Of the datagrams of one flow, over all take-overs of a test."""
SOON = 20.0


@pytest.fixture(scope="module")
def lab(make_module_lab: LabMaker) -> Lab:
    return make_module_lab(nodes=2, pods=2)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with Manager(tmp_path / "notify") as manager:
        yield manager


def rekeyed(lab: Lab) -> object:
    return lab.session(NODE, "node1")["established"]


def said(lab: Lab, word: str) -> int:
    return lab.info.log(NODE).read_text().count(word)


def test_take_overs_one_after_the_other_lose_nothing_worth_speaking_of(lab: Lab) -> None:
    """Beside TCP at full speed, whose packets are in every queue."""
    before = rekeyed(lab)
    with loaded(lab, seconds=5) as load:
        for _ in range(3):
            take_over(lab)
            load.check()
    assert {way: flow.lost for way, flow in load.flows.items() if flow.lost > MOST_LOST} == {}
    assert load.flows["within"].lost == 0
    assert sum(flow.again for flow in load.flows.values()) == 0
    assert sum(flow.refused for flow in load.flows.values()) == 0
    assert moved(load.tcp) > 0
    assert said(lab, "node.took-over") == said(lab, "node.handed-over") == 3
    assert said(lab, "handover.taken") == 3
    assert rekeyed(lab) == before  # the very session, not one made anew
    assert lab.ask(NODE, "status")["problems"] == []


def test_a_take_over_of_a_node_with_other_lanes_loses_nothing_on_any(make_lab: LabMaker) -> None:
    lab = make_lab(nodes=2, pods=2, settings={"MUSLIN_LANES": "2"})
    eventually(lambda: lanes_are_up(lab), within=SOON)
    with loaded(lab) as load:
        take_over(lab)
        load.check()
    assert {way: flow.lost for way, flow in load.flows.items() if flow.lost > MOST_LOST} == {}
    eventually(lambda: lanes_are_up(lab), within=SOON)


def lanes_are_up(lab: Lab) -> bool:
    return [lane["state"] for lane in lab.ask(NODE, "status")["lanes"]] == ["up", "up"]


def test_a_daemon_that_fails_to_take_over_leaves_the_running_one_as_it_was(lab: Lab) -> None:
    pid = lab.ask(NODE, "status")["pid"]
    node = lab.info.topology.node(NODE)
    with loaded(lab) as load:
        for settings, why in (
            ({"MUSLIN_TUN": "other0"}, "tun cannot be changed while packets flow"),
            ({"MUSLIN_OFFLOAD_TUN": "false"}, "cannot be changed"),
        ):
            before = said(lab, why)
            variables = {**lab.info.settings, **settings}
            start_daemon(node.netns, lab.info.state(NODE), lab.info.log(NODE), variables)
            eventually(lambda why=why, before=before: said(lab, why) > before, within=SOON)
        # One that is given everything and then dies: the old one has to take it up again.
        failed = said(lab, "handover.failed")
        give_and_die(lab)
        eventually(lambda: said(lab, "handover.failed") > failed, within=SOON)
        load.check()
    assert {way: flow.lost for way, flow in load.flows.items() if flow.lost > MOST_LOST} == {}
    assert lab.ask(NODE, "status")["pid"] == pid
    take_over(lab)


def give_and_die(lab: Lab) -> None:
    """Everything is given to somebody who does nothing with it."""
    node = lab.info.topology.node(NODE)
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from node.config import load_config\n"
        "from node.handover.succession import hello_for\n"
        "from node.handover.taker import Taker\n"
        "from node.identity import load_node\n"
        "from node.state import StateFolder\n"
        "import os\n"
        "folder = StateFolder(Path(sys.argv[1]))\n"
        "config = load_config(folder.config, os.environ, {})\n"
        "who = hello_for(config, load_node(folder).identity.node)\n"
        "print(sorted(Taker.ask(folder.path / 'handover.sock', who).take().descriptors))\n"
    )
    variables = [f"{key}={value}" for key, value in lab.info.settings.items()]
    state = str(lab.info.state(NODE))
    given = run(node.netns, "env", *variables, sys.executable, "-c", script, state)
    assert given.strip() == "['control', 'lock', 'tun', 'udp']"


def test_a_daemon_that_is_killed_resets_nothing_and_pods_of_its_node_notice_nothing(
    lab: Lab,
) -> None:
    with loaded(lab, seconds=5) as load:
        kill(lab)
        load.check()
    assert load.flows["within"].lost == 0
    assert load.flows["from"].refused == 0  # nobody was told that there is no way
    assert moved(load.tcp) > 0


def test_a_service_manager_that_restarts_it_keeps_what_waits(lab: Lab, manager: Manager) -> None:
    with Service(lab, manager) as service:
        before = rekeyed(lab)
        with loaded(lab, seconds=6) as load:
            for _ in range(2):
                service.restart()
                # Read once, and forgotten.
                eventually(lambda: "capsule" not in manager.store, within=SOON)
                load.check()
        assert load.flows["within"].lost == 0
        assert sum(flow.refused for flow in load.flows.values()) == 0
        assert moved(load.tcp) > 0
        assert rekeyed(lab) == before
        # What crashes is followed by one that begins with new keys, but with the same edges.
        with loaded(lab) as load:
            service.restart(signal.SIGKILL)
            load.check()
        assert load.flows["within"].lost == 0
        assert rekeyed(lab) != before
    eventually(lambda: sorted(manager.store) == ["capsule", "tun", "udp"], within=SOON)
    assert "muslin0" in run(lab[NODE].netns, "ip", "-o", "link")
    manager.release()
    assert "muslin0" not in run(lab[NODE].netns, "ip", "-o", "link")
    lab_start(lab.name, NODE, store=lab.store)
