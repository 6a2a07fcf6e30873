"""`muslin bench` between real daemons: sane figures, clear refusals, and nothing that stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from node.lab.processes import daemon_pid
from node.lab.verbs import lab_kill, lab_start
from tests.support.labs import Lab, LabMaker
from tests.support.machines import MUSLIN
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import Background, attempt, background, run
from tests.support.traffic import reaches
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

SOON = 30.0
FAR_END = b"node.bench.far"
BRIEFLY = ("--seconds", "0.3")


@pytest.fixture(scope="module")
def lab(make_module_lab: LabMaker) -> Lab:
    return make_module_lab(nodes=2, pods=1)


def words(lab: Lab, node: str, *options: str) -> list[str]:
    return [MUSLIN, "--state", str(lab.info.state(node)), "bench", *options]


def measured(lab: Lab, *options: str) -> dict[str, Any]:
    """What `bench -o json` says on node1, typed in node1's namespace."""
    said = run(lab["node1"].netns, *words(lab, "node1", *options, "-o", "json"), timeout=60.0)
    answer = json.loads(said)
    assert isinstance(answer, dict)
    return answer


def refused(lab: Lab, node: str, *options: str) -> str:
    done = attempt(lab[node].netns, *words(lab, node, *options), timeout=60.0)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    return str(done.stderr)


def far_ends(lab: Lab) -> list[int]:
    """The far ends that the lab's daemons have started: they start `nft` as well, now and then."""
    daemons = {daemon_pid(lab.info.state(node.name)) for node in lab.nodes}
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            argv = (entry / "cmdline").read_bytes().split(b"\0")
        except (OSError, IndexError, ValueError):
            continue
        if parent in daemons and FAR_END in argv:
            found.append(int(entry.name))
    return found


def listeners(lab: Lab) -> list[str]:
    """What listens for TCP at any node or pod."""
    places = (*lab.nodes, *lab.pods)
    return [line for each in places for line in run(each.netns, "ss", "-Hltn").splitlines()]


def nothing_is_left(lab: Lab) -> bool:
    return not far_ends(lab) and not listeners(lab)


def free(lab: Lab) -> bool:
    """Whether a measurement is served again."""
    done = attempt(lab["node1"].netns, *words(lab, "node1", "node2", *BRIEFLY), timeout=60.0)
    return done.returncode == 0


@contextmanager
def measuring(
    lab: Lab, seconds: float = 60.0, step: str = "UDP"
) -> Iterator[tuple[Background, int]]:
    """A measurement from node1 to node2 in the midst of a step, and its far end."""
    long = words(lab, "node1", "node2", "--seconds", str(seconds))
    with background(lab["node1"].netns, *long) as near:
        (child,) = eventually(lambda: far_ends(lab), within=SOON)
        eventually(lambda: f"through the overlay: {step}" in near.said(), within=SOON)
        yield near, child


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


# -- figures ---------------------------------------------------------------------------------------


def check_way(way: dict[str, Any], address: str, directions: list[str]) -> None:
    assert way["address"] == address
    assert way["faults"] == []
    assert [stream["direction"] for stream in way["tcp"]] == directions
    for stream in way["tcp"]:
        assert stream["bits_per_second"] > 1e6
        assert stream["bytes"] * 8 == pytest.approx(
            stream["bits_per_second"] * stream["seconds"], rel=0.01
        )
        for end in ("here", "there"):
            load = stream[end]
            assert load["cores"] == os.cpu_count()
            assert 0 <= load["idle"] <= 1
            assert 0 <= load["busiest"] <= load["daemon"] <= load["cores"]
    udp = way["udp"]
    assert udp["sent"] == 300
    assert 0 < udp["returned"] <= udp["arrived"] <= udp["sent"]
    assert 0 < udp["rtt_p50"] <= udp["rtt_p99"] < 1


def test_a_node_is_measured_through_the_overlay_and_beside_it(lab: Lab) -> None:
    answer = measured(lab, "node2", *BRIEFLY)
    assert (answer["target"], answer["kind"], answer["path"]) == ("node2", "node", "direct")
    check_way(answer["overlay"], lab["node2"].address, ["to"])
    check_way(answer["underlay"], lab.underlay_address("node2"), ["to"])
    rates = [answer[way]["tcp"][0]["bits_per_second"] for way in ("overlay", "underlay")]
    assert answer["ratio"]["to"] == pytest.approx(rates[0] / rates[1], rel=0.01)
    assert answer["ratio"]["from"] is None
    assert [limit["direction"] for limit in answer["limits"]] == ["to"]
    eventually(lambda: nothing_is_left(lab), within=SOON)


def test_the_overlay_carries_what_is_measured_through_it_and_only_that(lab: Lab) -> None:
    before = lab.session("node1", "node2")["tx_bytes"]
    answer = measured(lab, "node2", *BRIEFLY)
    carried = lab.session("node1", "node2")["tx_bytes"] - before
    through = answer["overlay"]["tcp"][0]["bytes"]
    assert through <= carried < through * 1.5 + (1 << 20)


def test_a_pod_is_measured_in_its_own_namespace_in_both_directions(lab: Lab) -> None:
    answer = measured(lab, "node2-pod1", *BRIEFLY, "--direction", "both", "--streams", "2")
    assert (answer["target"], answer["kind"]) == ("node2/node2-pod1", "pod")
    check_way(answer["overlay"], lab["node2-pod1"].address, ["to", "from"])
    check_way(answer["underlay"], lab.underlay_address("node2"), ["to", "from"])
    assert [limit["direction"] for limit in answer["limits"]] == ["to", "from"]
    eventually(lambda: nothing_is_left(lab), within=SOON)


def test_people_read_a_table_from_anywhere_on_the_machine(lab: Lab) -> None:
    """Not in the node's namespace: the command goes there itself."""
    said = run(lab.underlay, *words(lab, "node1", "node2", *BRIEFLY, "--reverse"), timeout=60.0)
    head, overlay, underlay, ratio, limit = said.splitlines()
    assert head.startswith(f"node node2 ({lab['node2'].address}), direct, 1 TCP stream")
    assert overlay.startswith("through the overlay")
    assert underlay.startswith(f"underlay {lab.underlay_address('node2')}")
    for line in (overlay, underlay):
        assert "bit/s" in line
        assert "ms p99" in line
        assert "loss" in line
    assert ratio.startswith("overlay / underlay")
    assert limit.startswith("limited by: ")


def test_an_underlay_of_ipv6_is_measured_as_well(lab6: Lab) -> None:
    answer = measured(lab6, "node2", *BRIEFLY)
    check_way(answer["overlay"], lab6["node2"].address, ["to"])
    check_way(answer["underlay"], lab6.underlay_address("node2"), ["to"])


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
def test_a_firewall_in_the_underlay_leaves_the_figures_of_the_overlay(lab: Lab) -> None:
    node2 = lab["node2"].netns
    rules = (
        "add table inet wall; add chain inet wall in { type filter hook input priority 0; };"
        'add rule inet wall in iifname != { "lo", "muslin0" } tcp dport 1-65535 drop'
    )
    if attempt(node2, "nft", rules).returncode != 0:
        pytest.skip("nft does not work here")
    try:
        answer = measured(lab, "node2", *BRIEFLY)
    finally:
        run(node2, "nft", "delete table inet wall")
    check_way(answer["overlay"], lab["node2"].address, ["to"])
    assert answer["underlay"]["tcp"] == []
    assert answer["underlay"]["faults"] == ["no answer on TCP: a firewall?"]
    assert answer["ratio"]["to"] is None


# -- refusals --------------------------------------------------------------------------------------


def test_a_second_measurement_is_refused_at_both_ends_while_the_first_goes_on(lab: Lab) -> None:
    with measuring(lab) as (near, child):
        busy = "cannot measure the way to"
        said = refused(lab, "node1", "node2")
        assert said.startswith(f"muslin: {busy} node2: a measurement to node2 is under way:")
        said = refused(lab, "node2", "node1")
        assert said.startswith(f"muslin: {busy} node1: a measurement from node1 is under way:")
        assert near.process.poll() is None
        assert far_ends(lab) == [child]
    eventually(lambda: nothing_is_left(lab), within=SOON)
    eventually(lambda: free(lab), within=SOON)


def test_a_node_that_is_set_not_to_be_measured_says_so(lab: Lab) -> None:
    config = lab.info.state("node2") / "config.toml"
    config.write_text("bench = false\n")
    pid = daemon_pid(lab.info.state("node2"))
    assert pid is not None
    os.kill(pid, signal.SIGHUP)
    try:
        eventually(lambda: "applied=bench" in lab.logs()["node2"], within=SOON)
        said = refused(lab, "node1", "node2")
        assert "node2 declined: its settings say bench = false" in said
    finally:
        config.unlink()
        os.kill(pid, signal.SIGHUP)
    eventually(lambda: lab.logs()["node2"].count("applied=bench") == 2, within=SOON)
    eventually(lambda: free(lab), within=SOON)


# -- what ends it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "SIGKILL"])
@pytest.mark.parametrize(("seconds", "step"), [(60.0, "UDP"), (3.0, "TCP")], ids=["UDP", "TCP"])
def test_when_the_command_ends_both_ends_do(
    lab: Lab, number: signal.Signals, seconds: float, step: str
) -> None:
    with measuring(lab, seconds, step) as (near, child):
        near.process.send_signal(number)
        code = near.process.wait(SOON)
        assert code == (130 if number == signal.SIGINT else -signal.SIGKILL)
        eventually(lambda: is_gone(child), within=SOON)
        assert "Traceback" not in near.said()
    eventually(lambda: nothing_is_left(lab), within=SOON)
    eventually(lambda: free(lab), within=SOON)


def test_a_far_daemon_that_dies_is_one_line_and_takes_its_far_end_along(lab: Lab) -> None:
    with measuring(lab) as (near, child):
        lab_kill(lab.name, "node2", signal.SIGKILL, store=lab.store)
        try:
            eventually(lambda: is_gone(child), within=SOON)
            assert near.process.wait(30.0) == 1
            said = near.said()
        finally:
            lab_start(lab.name, "node2", store=lab.store)
    last = said.splitlines()[-1]
    assert last.startswith("muslin: cannot measure the way to node2: node2 stopped answering")
    assert "Traceback" not in said
    eventually(lambda: reaches(lab["node1"], lab["node2"].address), within=SOON)
    eventually(lambda: free(lab), within=SOON)
    eventually(lambda: nothing_is_left(lab), within=SOON)
