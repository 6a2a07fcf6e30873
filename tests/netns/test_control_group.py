"""Other users of the machine at the control socket: members of one group may look, nobody else.

node1 -- control_group is set; a user is in the group, another is not; each on the node and in a pod
"""

from __future__ import annotations

import grp
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from node.lab.processes import command
from node.lab.verbs import lab_kill, lab_start
from tests.support.labs import OWN_ROOT, Lab, LabMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import attempt, background
from tests.support.waiting import eventually

pytestmark = [
    *NEEDS_KERNEL,
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv"),
]

GROUP = next(one for one in grp.getgrall() if one.gr_gid not in {0, *os.getgroups()})
WITHIN = 60.0
USER = 64_123
"""Of nobody on this machine."""


@pytest.fixture(scope="module")
def lab(make_module_lab: LabMaker) -> Iterator[Lab]:
    made = make_module_lab(nodes=1, pods=1, settings={"MUSLIN_CONTROL_GROUP": GROUP.gr_name})
    # The folders around a lab are root's alone; those around /var/lib/muslin are not.
    around = [folder for folder in (made.info.folder, *made.info.folder.parents) if is_ours(folder)]
    before = {folder: folder.stat().st_mode & 0o7777 for folder in around}
    for folder in around:
        folder.chmod(0o711)
    yield made
    for folder, mode in before.items():
        folder.chmod(mode)


def is_ours(folder: Path) -> bool:
    return OWN_ROOT in (folder, *folder.parents)


def asked(lab: Lab, place: str, method: str, *, member: bool) -> CompletedProcess[str]:
    """What a user is answered who is a member of the group, or of another."""
    script = (
        "import sys; from node.control.client import ControlClient; import json;"
        "print(json.dumps(ControlClient(sys.argv[1]).call(sys.argv[2], **json.loads(sys.argv[3]))))"
    )
    group = GROUP.gr_gid if member else USER + 1
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", f"--groups={group}", "--"]
    path = str(lab.info.state("node1") / "control.sock")
    params = {"get": {"kind": "nodes"}, "pod.add": {"name": "x"}, "remove": {"name": "node1"}}
    words = [sys.executable, "-c", script, path, method, json.dumps(params.get(method, {}))]
    return attempt(lab[place].netns, *become, *words)


@pytest.mark.parametrize(
    ("method", "says"),
    [("status", "node1"), ("metrics", "node1"), ("get", "node1"), ("doctor", "forwarding")],
)
def test_a_member_of_the_group_looks(lab: Lab, method: str, says: str) -> None:
    done = asked(lab, "node1", method, member=True)
    assert says in done.stdout, done.stderr


@pytest.mark.parametrize("method", ["token", "pod.add", "remove", "leave", "stop"])
def test_a_member_of_the_group_changes_nothing_and_gets_no_secret(lab: Lab, method: str) -> None:
    before = lab.get("node1", "pods")
    done = asked(lab, "node1", method, member=True)
    assert "ControlError: members of group" in done.stderr
    assert [row["name"] for row in lab.get("node1", "pods")] == [row["name"] for row in before]


@pytest.mark.parametrize("place", ["node1", "node1-pod1"])
def test_who_is_not_in_the_group_does_not_come_near_the_socket(lab: Lab, place: str) -> None:
    done = asked(lab, place, "status", member=False)
    assert "may not use" in done.stderr


def test_members_reach_nothing_else_in_the_folder(lab: Lab) -> None:
    folder = lab.info.state("node1")
    assert (folder.stat().st_mode & 0o777, folder.stat().st_gid) == (0o710, GROUP.gr_gid)
    become = ["setpriv", f"--reuid={USER}", f"--regid={USER}", f"--groups={GROUP.gr_gid}", "--"]
    assert attempt(lab["node1"].netns, *become, "ls", str(folder)).returncode != 0
    files = [path for path in folder.iterdir() if path.name != "control.sock"]
    assert {"identity.key", "authority.key", "cluster", "state"} <= {path.name for path in files}
    for path in files:
        done = attempt(lab["node1"].netns, *become, "cat", str(path))
        assert (done.returncode != 0, done.stdout) == (True, ""), path


def test_without_the_setting_the_folder_is_closed_again(lab: Lab) -> None:
    """The last: the daemon runs without it from here on."""
    lab_kill(lab.name, "node1", signal.SIGTERM, store=lab.store)
    lab.store.save(lab.info, settings={})
    lab_start(lab.name, "node1", store=lab.store)
    folder = lab.info.state("node1")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "control.sock").stat().st_mode & 0o777 == 0o600
    assert "may not use" in asked(lab, "node1", "status", member=True).stderr


BOUNDED = "--bounding-set=-setgid,-chown,-fowner,-dac_override,-setuid,-setpcap"
"""As in the shipped unit, none of these is there."""


def test_bounded_as_in_the_unit_the_daemon_needs_the_group_given_and_says_so(lab: Lab) -> None:
    lab_kill(lab.name, "node1", signal.SIGTERM, store=lab.store)
    config = lab.info.state("node1") / "config.toml"
    config.write_text(f'control_group = "{GROUP.gr_name}"\n')
    words = command(lab.info.state("node1"), "up")
    try:
        alone = attempt(lab["node1"].netns, "setpriv", BOUNDED, "--clear-groups", "--", *words)
        assert alone.returncode == 1
        assert alone.stderr.endswith(f"or with SupplementaryGroups={GROUP.gr_name} in the unit\n")
        given = ["setpriv", BOUNDED, f"--groups={GROUP.gr_gid}", "--"]
        with background(lab["node1"].netns, *given, *words):
            eventually(
                lambda: "node1" in asked(lab, "node1", "status", member=True).stdout, within=WITHIN
            )
    finally:
        config.unlink()
        lab_start(lab.name, "node1", store=lab.store)


def test_a_group_that_does_not_exist_keeps_the_daemon_from_starting(lab: Lab) -> None:
    lab_kill(lab.name, "node1", signal.SIGTERM, store=lab.store)
    config = lab.info.state("node1") / "config.toml"
    config.write_text('control_group = "no-such-group"\n')
    done = attempt(lab["node1"].netns, *command(lab.info.state("node1"), "up"))
    config.unlink()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"muslin: cannot run the daemon: {config}: control_group names no group of this machine: "
        "make it with groupadd no-such-group, or leave it out\n"
    )
