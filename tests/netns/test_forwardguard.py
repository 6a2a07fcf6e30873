"""A machine whose own packet filter drops what is forwarded, as Docker and ufw set it up."""

from __future__ import annotations

import pytest

from tests.support.machines import Machine
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import attempt, run
from tests.support.runtimes import needs
from tests.support.traffic import is_answered, reaches
from tests.support.waiting import eventually

pytestmark = [*NEEDS_KERNEL, needs("iptables", "nft")]

SOON = 60.0
FILTERS = {
    "iptables": ["iptables -P FORWARD DROP"],
    "nft": [
        "nft add table inet mine",
        "nft add chain inet mine pass '{ type filter hook forward priority 0; policy drop; }'",
    ],
}


@pytest.mark.parametrize("kind", FILTERS)
def test_it_is_named_and_the_fix_that_is_said_helps(node1: Machine, kind: str) -> None:
    node1.says("pod", "add", f"other-{kind}")
    web, other = node1.place("web"), node1.place(f"other-{kind}")
    assert is_answered(web, other.address)
    for command in FILTERS[kind]:
        run(node1.netns, "sh", "-c", command)
    assert not reaches(web, other.address), "what it is about"
    eventually(lambda: "forward-dropped" in node1.problems(), within=SOON)
    (problem,) = (
        problem
        for problem in node1.ask("status")["problems"]
        if problem["code"] == "forward-dropped"
    )
    done = attempt(node1.netns, "sh", "-c", problem["fix"])
    assert done.returncode == 0, done.stderr
    assert is_answered(web, other.address)
    eventually(lambda: "forward-dropped" not in node1.problems(), within=SOON)
    node1.says("pod", "del", f"other-{kind}")
