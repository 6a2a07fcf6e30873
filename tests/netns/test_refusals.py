"""Item 9 of what Muslin promises: wrong use gets one clear line, and nothing has changed.

muslin: what failed: why: what to do

node1 -- founded the cluster, runs         node3 -- nothing was ever done here
node2 -- joined, does not run              node4 -- cannot reach the others
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from node.kernel import netns
from node.state import (
    AUTHORITY,
    CLUSTER,
    FILES,
    IDENTITY,
    REQUEST,
    STATE,
    StateFolder,
    StoredFile,
)
from overlay.wire.token import JoinToken
from tests.support.labs import OWN_ROOT
from tests.support.machines import Done, Machine, Yard, YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import run
from tests.support.refusals import NO_ADMIN, NOBODY, in_a_mount_namespace, nothing_changes, refused

pytestmark = NEEDS_KERNEL

OF_A_FOUNDER = [file for file in FILES if file not in (REQUEST, STATE)]
"""Files read whole of a running founder: the state is a journal, a request comes before a node."""

BOUNDED = 45.0
"""Seconds after which a join must have given up."""


@dataclass(frozen=True)
class Scene:
    """The four machines, and two joins that have no chance and take a while to see it."""

    yard: Yard
    founder: Machine
    member: Machine
    blank: Machine
    used: str
    """The token that node2 has used."""
    silent: Future[Done]
    """Of node4: nobody answers at the token's address."""
    unknown: Future[Done]
    """Of node3: the member is there and does not know the token."""

    def token(self) -> str:
        """A good token."""
        return str(self.founder.ask("token")["token"])


@pytest.fixture(scope="module")
def scene(make_module_yard: YardMaker) -> Iterator[Scene]:
    yard = make_module_yard(4)
    founder, member, blank, alone = yard.machines
    yard.found()
    token = founder.ask("token")["token"]
    member.says("join", token, "--name", member.name)
    yard.cut((founder, alone))
    good = founder.ask("token")["token"]
    forged = str(replace(JoinToken.parse(good), id=bytes(16)))
    with ThreadPoolExecutor(2) as hands:
        silent = hands.submit(alone.types, "join", good, "--name", "x", timeout=BOUNDED)
        elsewhere = ("--state", yard.info.folder / "elsewhere")
        words = ("join", forged, "--name", "y", *elsewhere)
        unknown = hands.submit(blank.types, *words, timeout=BOUNDED)
        yield Scene(yard, founder, member, blank, token, silent, unknown)


# -- up --------------------------------------------------------------------------------------------

UP = "cannot run the daemon"


def test_up_before_init(scene: Scene) -> None:
    with nothing_changes(scene.blank):
        done = scene.blank.types("up")
    refused(
        done,
        f"{UP}: {scene.blank.state} holds no node yet: "
        "run muslin init, muslin join TOKEN or muslin cert request first",
    )


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (
            in_a_mount_namespace("mount -t tmpfs none /dev/net"),
            (
                "there is no /dev/net/tun: run modprobe tun, or give the container "
                "--device /dev/net/tun"
            ),
        ),
        (
            in_a_mount_namespace("mount --bind /dev/null /dev/net/tun"),
            (
                "cannot make the interface muslin0: "
                "/dev/net/tun is not the TUN device: load the tun ..."
            ),
        ),
        (
            NO_ADMIN,
            (
                "this process may not change the network (it has no CAP_NET_ADMIN): "
                "give the container NET_ADMIN"
            ),
        ),
        (NOBODY, "looking into ...node2: permission denied: run as root"),
        (("env", "MUSLIN_MTU=9"), "MUSLIN_MTU must be 1280 to 9000, not 9"),
        (
            ("env", "MUSLIN_LOGLEVEL=debug"),
            "MUSLIN_LOGLEVEL is not a setting (did you mean MUSLIN_LOG_LEVEL?)",
        ),
    ],
    ids=["no-tun", "dead-tun", "no-capability", "nobody", "bad-variable", "unknown-variable"],
)
def test_up_where_something_is_missing(scene: Scene, before: Sequence[str], says: str) -> None:
    with nothing_changes(scene.member):
        done = scene.member.types("up", before=before)
    refused(done, f"{UP}: {says}")


def test_up_without_root_on_a_folder_of_ones_own(scene: Scene) -> None:
    folder = shutil.copytree(scene.member.state, OWN_ROOT / "own")  # nobody can get there
    try:
        for entry in (folder, *folder.iterdir()):
            shutil.chown(entry, 65534, 65534)
        done = scene.member.types("up", "--state", folder, before=NOBODY)
    finally:
        shutil.rmtree(folder)
    refused(
        done,
        f"{UP}: this process may not change the network (it has no CAP_NET_ADMIN): run as root",
    )


def test_up_with_a_route_of_the_host_in_the_way(scene: Scene) -> None:
    route = ("10.244.7.0/24", "dev", "eth0")
    run(scene.member.netns, "ip", "route", "add", *route)
    try:
        with nothing_changes(scene.member):
            done = scene.member.types("up")
    finally:
        run(scene.member.netns, "ip", "route", "del", *route)
    refused(
        done,
        f"{UP}: the cluster range 10.244.0.0/16 overlaps the host route 10.244.7.0/24 dev eth0: "
        "remove that route, or make the cluster with another --cidr",
    )


def test_up_with_the_port_in_use(scene: Scene) -> None:
    other = netns.run_in(scene.member.netns, socket.socket, socket.AF_INET6, socket.SOCK_DGRAM)
    with other, nothing_changes(scene.member):
        other.bind(("::", 6875))
        done = scene.member.types("up")
    says = "cannot listen on [::]:6875: the UDP port is in use"
    refused(done, f"{UP}: {says}: stop the other program, or choose another port")


def test_up_in_the_namespace_of_another_node(scene: Scene) -> None:
    with nothing_changes(scene.founder, scene.member):
        done = scene.founder.types("up", "--state", scene.member.state)
    says = "cannot listen on [::]:6875: the UDP port is in use"
    refused(done, f"{UP}: {says}: stop the other program, or choose another port")


def test_up_on_an_address_that_the_machine_does_not_have(scene: Scene) -> None:
    with nothing_changes(scene.member):
        done = scene.member.types("up", "--listen", "203.0.113.9:6875")
    says = "cannot listen on 203.0.113.9:6875: this machine does not have the address"
    refused(done, f"{UP}: {says}: choose one that it has, or 0.0.0.0 or :: for all of them")


def test_up_beside_a_daemon_whose_place_it_cannot_take(scene: Scene) -> None:
    member = scene.member
    with nothing_changes(scene.founder):
        done = member.types("up", "--state", scene.founder.state)
        listening = scene.founder.types("up", "--listen", "0.0.0.0:7000")
    refused(done, f"{UP}: the running daemon is in another network namespace: run it there")
    again = "stop the daemon and start it again"
    refused(listening, f"{UP}: listen cannot be changed while packets flow: {again}")


def test_up_in_a_folder_that_somebody_else_works_on(scene: Scene) -> None:
    with StateFolder(scene.member.state).locked():
        done = scene.member.types("up")
    fix = "stop that process, or choose another folder with --state"
    refused(done, f"{UP}: {scene.member.state} is in use by process {os.getpid()}: {fix}")


def test_up_with_a_file_for_a_folder(scene: Scene) -> None:
    done = scene.blank.types("up", "--state", "/etc/hostname")
    refused(done, f"{UP}: looking into /etc/hostname: not a directory: choose another folder")


# -- damaged files ---------------------------------------------------------------------------------


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def newer(content: bytes) -> bytes:
    return content.replace(b" 1 ", b" 2 ", 1)


Damage = Callable[[bytes], bytes]
RESTORE = "restore it from a backup"
DAMAGES: list[tuple[str, Damage, str]] = [
    ("bit-flipped", flipped, f"is damaged (checksum mismatch): {RESTORE}"),
    ("truncated", lambda content: content[:-5], f"is damaged (checksum mismatch): {RESTORE}"),
    ("garbage", lambda _: b"\0" * 99, f"is damaged or not a file of Muslin (no header): {RESTORE}"),
    ("newer", newer, "was written by a newer Muslin: upgrade this Muslin"),
]


@pytest.mark.parametrize(
    ("damage", "says"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES]
)
@pytest.mark.parametrize("file", OF_A_FOUNDER, ids=[file.name for file in OF_A_FOUNDER])
def test_up_with_a_damaged_file(
    scene: Scene, tmp_path: Path, file: StoredFile, damage: Damage, says: str
) -> None:
    # Only where a cluster was founded is there an authority's key, and that node runs: a copy.
    folder = shutil.copytree(scene.founder.state, tmp_path / "copy", ignore=sockets)
    path = folder / file.name
    path.write_bytes(damage(path.read_bytes()))
    with nothing_changes(scene.blank):
        done = scene.blank.types("up", "--state", folder)
    refused(done, f"{UP}: {path} {says}")


def test_up_with_a_damaged_state(scene: Scene, tmp_path: Path) -> None:
    folder = shutil.copytree(scene.founder.state, tmp_path / "copy", ignore=sockets)
    path, copy = folder / STATE.name, folder / f"{STATE.name}.damaged-1"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with nothing_changes(scene.blank):
        done = scene.blank.types("up", "--state", folder)
    why = f"{path} is damaged at byte ... of {len(content)} (...), a copy is {copy}"
    refused(done, f"{UP}: {why}: {RESTORE}, then run muslin ipam claim")
    assert copy.read_bytes() == content


def test_up_with_a_state_of_a_newer_version(scene: Scene, tmp_path: Path) -> None:
    folder = shutil.copytree(scene.founder.state, tmp_path / "copy", ignore=sockets)
    path = folder / STATE.name
    path.write_bytes(newer(path.read_bytes()))
    done = scene.blank.types("up", "--state", folder)
    refused(done, f"{UP}: {path} was written by a newer Muslin: upgrade this Muslin")
    assert list(folder.glob("*.damaged-*")) == []


def test_up_in_a_folder_that_cannot_be_written(scene: Scene, tmp_path: Path) -> None:
    folder = shutil.copytree(scene.founder.state, tmp_path / "copy", ignore=sockets)
    mounts = f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"
    done = scene.blank.types("up", "--state", folder, before=in_a_mount_namespace(mounts))
    refused(done, f"{UP}: opening {folder / 'lock'}: read-only file system: remount it writable")


def sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_socket()]


@pytest.mark.parametrize("file", [IDENTITY, CLUSTER, STATE], ids=lambda file: file.name)
def test_up_with_a_missing_file(scene: Scene, tmp_path: Path, file: StoredFile) -> None:
    folder = shutil.copytree(scene.member.state, tmp_path / "copy")
    (folder / file.name).unlink()
    done = scene.member.types("up", "--state", folder)
    refused(done, f"{UP}: {folder / file.name} is missing: {RESTORE}")


def test_up_with_files_of_two_nodes(scene: Scene, tmp_path: Path) -> None:
    folder = shutil.copytree(scene.member.state, tmp_path / "copy")
    shutil.copy(scene.founder.state / IDENTITY.name, folder)
    done = scene.member.types("up", "--state", folder)
    why = f"{folder / IDENTITY.name} and cluster are of different nodes"
    refused(done, f"{UP}: {why}: restore both from one backup")


def test_up_with_a_secret_that_others_may_read(scene: Scene, tmp_path: Path) -> None:
    folder = shutil.copytree(scene.founder.state, tmp_path / "copy", ignore=sockets)
    path = folder / AUTHORITY.name
    path.chmod(0o644)
    done = scene.blank.types("up", "--state", folder)
    why = f"{path} holds secrets and other users may read it"
    refused(done, f"{UP}: {why}: run chmod 600 {path}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("mtu =", "is not TOML (...)"),
        ("[log]\nlevle = 'info'", ": log.levle is not a setting (did you mean log.level?)"),
        ("mtu = 100", ": mtu must be 1280 to 9000, not 100"),
    ],
)
def test_up_with_bad_settings(scene: Scene, tmp_path: Path, text: str, says: str) -> None:
    folder = shutil.copytree(scene.member.state, tmp_path / "copy")
    (folder / "config.toml").write_text(text)
    done = scene.member.types("up", "--state", folder)
    refused(done, f"{UP}: {folder / 'config.toml'}{says if says[0] == ':' else ' ' + says}")


# -- init ------------------------------------------------------------------------------------------

INIT = "cannot start a cluster"


def test_init_twice(scene: Scene) -> None:
    with nothing_changes(scene.member):
        done = scene.member.types("init")
    why = f"{scene.member.state} already holds a node (identity.key)"
    refused(done, f"{INIT}: {why}: choose another folder with --state, or remove this one")


def test_init_over_a_route_of_the_host(scene: Scene) -> None:
    with nothing_changes(scene.blank):
        done = scene.blank.types("init", "--cidr", "198.51.0.0/16")
    why = "the cluster range 198.51.0.0/16 overlaps the host route 198.51.100.0/24 dev eth0"
    fix = "remove that route, or make the cluster with another --cidr"
    refused(done, f"{INIT}: {why}: {fix}")


def test_init_where_nobody_may_write(scene: Scene) -> None:
    done = scene.blank.types("init", "--name", "a", "--state", "/nowhere/x", before=NOBODY)
    refused(done, f"{INIT}: creating /nowhere/x: permission denied: run as root")


# -- join ------------------------------------------------------------------------------------------

JOIN = "cannot join"
ANOTHER = "make another token with muslin token"


def damaged(token: str) -> str:
    return token[:40] + ("A" if token[40] != "A" else "B") + token[41:]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda _: "hello",
            "this is not a join token: copy the line that muslin token prints, ...",
        ),
        (damaged, "the join token is damaged: copy the whole line again"),
        (lambda token: token[:-1], "the join token is damaged: copy the whole line again"),
        (
            lambda token: token.replace("muslin1-", "muslin2-"),
            "this join token is of version 2, only 1 is known: upgrade this Muslin",
        ),
    ],
    ids=["none", "damaged", "cut-short", "newer"],
)
def test_join_with_a_token_that_is_none(
    scene: Scene, change: Callable[[str], str], says: str
) -> None:
    with nothing_changes(scene.blank, scene.founder):
        done = scene.blank.types("join", change(scene.token()), "--name", "b")
    refused(done, f"{JOIN}: {says}")


def test_join_with_a_token_that_was_used(scene: Scene) -> None:
    with nothing_changes(scene.blank, scene.founder):
        done = scene.blank.types("join", scene.used, "--name", "b")
    refused(done, f"{JOIN}: this token has admitted a node already: {ANOTHER}")


def test_join_with_a_token_that_has_expired(scene: Scene) -> None:
    token = scene.founder.says("token", "--ttl", "1s").strip()
    threading.Event().wait(1.1)
    with nothing_changes(scene.blank, scene.founder):
        done = scene.blank.types("join", token, "--name", "b")
    refused(done, f"{JOIN}: this token has expired (by this machine's clock): {ANOTHER}")


@pytest.mark.parametrize("name", ["node1", "node2"], ids=["founder", "member"])
def test_join_under_a_name_that_is_taken_and_the_token_stays_good(scene: Scene, name: str) -> None:
    token = scene.token()
    with nothing_changes(scene.blank, scene.founder):
        for _ in range(2):
            done = scene.blank.types("join", token, "--name", name)
            why = f"a node named {name} exists in the cluster"
            refused(done, f"{JOIN}: {why}: choose another name with --name")


def test_join_in_a_folder_that_holds_a_node(scene: Scene) -> None:
    with nothing_changes(scene.member, scene.founder):
        done = scene.member.types("join", scene.token(), "--name", "b")
    why = f"{scene.member.state} already holds a node (identity.key)"
    refused(done, f"{JOIN}: {why}: choose another folder with --state, or remove this one")


def test_join_where_a_route_is_in_the_way_keeps_the_membership_for_later(scene: Scene) -> None:
    route = ("10.0.0.0/8", "dev", "eth0")
    state = ("--state", scene.yard.info.folder / "routed")
    run(scene.blank.netns, "ip", "route", "add", *route)
    try:
        scene.blank.says("join", scene.token(), "--name", "routed", *state)
        done = scene.blank.types("up", *state)
    finally:
        run(scene.blank.netns, "ip", "route", "del", *route)
    refused(done, f"{UP}: the cluster range 10.244.0.0/16 overlaps the host route 10.0.0.0/8 ...")


# -- what takes a while, begun with the first test -------------------------------------------------


def test_join_with_no_member_in_reach(scene: Scene) -> None:
    done = scene.silent.result()
    where = f"nobody answered at {scene.founder.address}:6875"
    fix = "see that the node that made the token runs, that UDP reaches it, ..."
    refused(done, f"{JOIN}: {where}: {fix}")
    assert not scene.yard.machines[3].state.exists()


def test_join_with_a_token_of_another_cluster(scene: Scene) -> None:
    """A member does not answer strangers, so this looks like silence."""
    done = scene.unknown.result()
    where = f"nobody answered at {scene.founder.address}:6875"
    refused(done, f"{JOIN}: {where}: ... that it has not forgotten the token")
    assert not (scene.yard.info.folder / "elsewhere").exists()
