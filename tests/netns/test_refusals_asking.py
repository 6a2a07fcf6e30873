"""Item 9 of what Muslin promises, for questions and for wrong usage: one clear line, no change.

node1 -- founded the cluster, runs         node3 -- nothing was ever done here
node2 -- joined, does not run
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.support.machines import Machine, YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.refusals import NOBODY, nothing_changes, refused

pytestmark = NEEDS_KERNEL


@dataclass(frozen=True)
class Scene:
    """The machines."""

    founder: Machine
    member: Machine
    blank: Machine


@pytest.fixture(scope="module")
def scene(make_module_yard: YardMaker) -> Scene:
    yard = make_module_yard(3)
    founder, member, blank = yard.machines
    yard.found()
    member.says("join", founder.ask("token")["token"], "--name", member.name)
    return Scene(founder, member, blank)


# -- asking a daemon -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["status"], "cannot tell the status"),
        (["get", "nodes"], "cannot get nodes"),
        (["token"], "cannot make a token"),
        (["pod", "add", "web"], "cannot add pod web"),
        (["pod", "del", "web"], "cannot delete pod web"),
        (["exec", "web", "--", "true"], "cannot run a command in pod web"),
        (["ping", "node1"], "cannot ping node1"),
        (["leave"], "cannot leave"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-",
)
def test_asking_when_no_daemon_runs(scene: Scene, words: list[str], what: str) -> None:
    with nothing_changes(scene.member):
        done = scene.member.types(*words)
    why = f"no daemon is running for {scene.member.state}"
    refused(done, f"{what}: {why}: start it with muslin up, or name its folder with --state")


def test_asking_without_permission(scene: Scene) -> None:
    done = scene.founder.types("status", before=NOBODY)
    why = f"this user may not use {scene.founder.state}/control.sock"
    refused(done, f"cannot tell the status: {why}: run as root, or to look as a member of its ...")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("ping nobody", "cannot ping nobody: nothing is called nobody: nodes are: node1...; pods"),
        (
            "ping 10.244.200.9",
            "cannot ping 10.244.200.9: no node owns 10.244.200.9: see muslin get",
        ),
        ("ping 192.0.2.1", "cannot ping 192.0.2.1: no node owns 192.0.2.1: see muslin get routes"),
        ("get nodes nobody", "cannot get node nobody: there is no node nobody: nodes are: node1"),
        ("get pods web", "cannot get pod web: there is no pod web: pods are: node1/taken"),
        ("exec web -- true", "cannot run a command in pod web: there is no pod web: pods are: "),
        (
            "exec taken nonsense",
            "cannot run a command in pod taken: running nonsense: no such file",
        ),
        ("pod del web", "cannot delete pod web: there is no pod web: pods are: node1/taken"),
        ("pod add taken", "cannot add pod taken: pod taken exists: choose another name"),
        ("pod add A_b", "cannot add pod A_b: 'A_b' is not a name: 1 to 63 of a-z, 0-9 and -"),
        (
            "pod add web --netns nowhere",
            (
                "cannot add pod web: there is no namespace /run/netns/nowhere: make one with: "
                "ip netns add nowhere"
            ),
        ),
        (
            "pod add web --netns /etc/hostname",
            "cannot add pod web: /etc/hostname is not a network namespace: name one below ",
        ),
        (
            "pod add web --netns /proc/self/ns/net",
            "cannot add pod web: /proc/self/ns/net is the namespace of the node itself: ",
        ),
        (
            "pod add web --ip 10.99.0.1",
            "cannot add pod web: 10.99.0.1 is not an address of this node's: choose one inside a",
        ),
        (
            "pod add web --ip 10.244.0.1",
            "cannot add pod web: 10.244.0.1 is the node's own: choose another",
        ),
        (
            "pod add web --ip 10.244.0.77",
            "cannot add pod web: pod taken has 10.244.0.77: choose another",
        ),
        (
            "leave",
            (
                "cannot leave: this node holds the authority's key: without it nobody can join any "
                "more: "
            ),
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "-",
)
def test_asking_for_what_cannot_be(scene: Scene, taken: str, words: str, says: str) -> None:
    with nothing_changes(scene.founder):
        done = scene.founder.types(*words.split())
    refused(done, f"{says}...")


@pytest.fixture(scope="module")
def taken(scene: Scene) -> str:
    """A pod that is there."""
    scene.founder.says("pod", "add", "taken", "--ip", "10.244.0.77")
    return "taken"


# -- wrong usage -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nonsense", "no such command 'nonsense': see muslin --help"),
        ("--nonsense", "no such option '--nonsense': see muslin --help"),
        ("get", "missing argument 'KIND': see muslin get --help"),
        (
            "get things",
            "there is no kind 'things', kinds are nodes, pods, routes, sessions, blocks",
        ),
        ("get nodes -o xml", "invalid value for '-o' / '--output': 'xml' is not one of 'wide', "),
        ("get nodes a b", "got unexpected extra argument (b): see muslin get --help"),
        ("status -o wide", "invalid value for '-o' / '--output': 'wide' is not one of 'json', "),
        ("join", "give a TOKEN, or - to read it, or --token-file FILE: see muslin join --help"),
        ("join muslin1-x --name A_b", "--name: 'A_b' is not a name: 1 to 63 of a-z"),
        ("init --name A_b", "--name: 'A_b' is not a name: 1 to 63 of a-z"),
        ("init --cidr ten", "--cidr: 'ten' is not an IPv4 range (...): see muslin init --help"),
        ("init --cidr 224.0.0.0/8", "--cidr: 224.0.0.0/8 overlaps 224.0.0.0/4, which cannot hold"),
        ("init --cidr6 fd00::/60", "--cidr6: ...: see muslin init --help"),
        ("init --block-prefix 99", "invalid value for '--block-prefix': 99 is not in the range"),
        (
            "init --block-prefix 8",
            "--block-prefix: a block of 10.244.0.0/16 is a /16 to a /30, not",
        ),
        ("init --listen here", "--listen: 'here' is not ADDRESS:PORT (...): see muslin init"),
        ("init --advertise [::]:9", "--advertise: [::]:9 is not an address that others can reach"),
        ("up --listen here", "--listen: 'here' is not ADDRESS:PORT (...): see muslin up --help"),
        ("up --log-level loud", "--log-level: must be debug or info or warning or error, not"),
        ("up --loop twisted", "--loop: must be uvloop or asyncio, not 'twisted': see muslin up"),
        ("token --ttl never", "invalid value for '--ttl': 'never' is not a duration, write 90s"),
        ("pod", "missing command: see muslin pod --help"),
        ("pod add", "missing argument 'NAME': see muslin pod add --help"),
        ("pod add web --ip here", "invalid value for '--ip': 'here' is not an address: see"),
        ("exec", "missing argument 'POD': see muslin exec --help"),
        ("exec web", "missing argument '-- CMD ...': see muslin exec --help"),
        ("ping", "missing argument 'POD|NODE|ADDRESS': see muslin ping --help"),
        ("ping web -c 0", "invalid value for '-c' / '--count': 0 is not in the range x>=1: see"),
        ("lab up --nodes 0", "--nodes: must be 1 to 100, not 0: see muslin lab up --help"),
        ("lab up --name A", "--name: must be lower-case letters, digits and dashes, not 'A'"),
        ("lab up --mtu 100", "--mtu: must be 1280 to 9000, not 100: see muslin lab up --help"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "-",
)
def test_wrong_usage_is_exit_code_2(scene: Scene, words: str, says: str) -> None:
    # `up` looks for a node before anything else.
    machine = scene.member if words.startswith("up") else scene.blank
    with nothing_changes(machine):
        done = machine.types(*words.split())
    refused(done, f"wrong usage: {says}...", code=2)
