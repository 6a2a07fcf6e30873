"""`muslin init`, `join`, `leave` and `remove`."""

from __future__ import annotations

import io
import os
import re
import shutil
import time
from dataclasses import replace
from ipaddress import ip_network

import pytest

from node import joiner
from node.cli.output import grouped
from node.config import load_config
from node.founding import found_node
from node.identity import load_node
from node.kernel.overlap import HostRoute
from node.state import StateFolder
from overlay.errors import RefusedError
from overlay.types import Endpoint, NodeId
from overlay.wire.token import JoinToken


class FakeNetlink:
    """A machine with one route."""

    def __enter__(self) -> FakeNetlink:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def host_routes(self) -> list[HostRoute]:
        return [HostRoute(ip_network("10.20.0.0/16"), "eth0")]


@pytest.fixture(autouse=True)
def _machine(monkeypatch) -> None:
    monkeypatch.setattr("node.kernel.netlink.Netlink", FakeNetlink)


def test_init_stores_a_node_and_says_what_it_did(muslin, state) -> None:
    ran = muslin("init", "--name", "vm1", "--cidr", "10.30.0.0/20", "--block-prefix", "26")
    assert ran.code == 0
    node = load_node(StateFolder(state))
    assert node.certificate.name == "vm1"
    assert node.cluster.cidr == ip_network("10.30.0.0/20")
    assert node.cluster.cidr6 is not None
    assert str(node.cluster.cidr6).startswith("fd")
    fingerprint = grouped(node.cluster.authority_fingerprint.hex())
    assert ran.out.splitlines() == [
        f"founded cluster {node.cluster.id.hex()} with node vm1",
        f"pods get addresses of 10.30.0.0/20 and {node.cluster.cidr6}",
        "nodes get blocks of /26; there are 64",
        f"keys, certificate and the cluster's authority are in {state}",
        f"its fingerprint, for cert install: {fingerprint}",
    ]
    assert "muslin --state" in ran.err
    assert not (state / "config.toml").exists()


def test_the_default_name_is_the_hosts(muslin, state, monkeypatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "BIG.example")
    muslin("init")
    assert load_node(StateFolder(state)).certificate.name == "big"


def test_ipv6_can_be_chosen_or_left_out(muslin, state, tmp_path) -> None:
    muslin("init", "--name", "a", "--cidr6", "none")
    assert load_node(StateFolder(state)).cluster.cidr6 is None
    muslin("init", "--name", "a", "--cidr6", "fd12::/48", "--state", str(tmp_path / "b"))
    assert load_node(StateFolder(tmp_path / "b")).cluster.cidr6 == ip_network("fd12::/48")


def test_listen_and_advertise_are_kept_for_up(muslin, state) -> None:
    flags = ("--listen", "[::]:7000", "--advertise", "192.0.2.1", "--advertise", "[2001:db8::1]:9")
    assert muslin("init", "--name", "a", *flags).code == 0
    text = (state / "config.toml").read_text()
    assert '\nlisten = "[::]:7000"\n' in text
    assert '\nadvertise = ["192.0.2.1:6875", "[2001:db8::1]:9"]\n' in text


def test_a_used_folder_is_refused_and_left_alone(muslin, state) -> None:
    muslin("init", "--name", "a")
    before = {path.name: path.read_bytes() for path in state.iterdir()}
    ran = muslin("init", "--name", "b")
    assert ran.code == 1
    assert f"{state} already holds a node (authority.key): choose another folder" in ran.err
    assert muslin("join", str(some_token())).code == 1
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before


def test_how_long_certificates_live_is_said_once_and_kept(muslin, state) -> None:
    assert muslin("init", "--name", "a", "--certificate-days", "7").code == 0
    assert load_config(state / "config.toml", {}).certificate_days == 7
    certificate = load_node(StateFolder(state)).certificate
    assert certificate.not_after - certificate.not_before == 7 * 86_400 + 3600


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (("--cidr", "10.20.128.0/20"), 1, "overlaps the host route 10.20.0.0/16 dev eth0"),
        (("--cidr", "10.0.0.0/8"), 1, "overlaps the host route 10.20.0.0/16 dev eth0"),
        (("--cidr", "127.0.0.0/8"), 2, "--cidr: 127.0.0.0/8 overlaps"),
        (("--block-prefix", "31"), 2, "--block-prefix: "),
        (("--cidr6", "fd00::/60"), 2, "--cidr6: "),
        (("--name", "A_b"), 2, "--name: 'A_b' is not a name"),
        (("--cidr", "foo"), 2, "--cidr: 'foo' is not an IPv4 range"),
        (("--cidr6", "fd00::/129"), 2, "--cidr6: 'fd00::/129' is not an IPv6 range"),
        (("--listen", "nowhere"), 2, "--listen: 'nowhere' is not ADDRESS:PORT"),
        (("--advertise", "[::]:1"), 2, "--advertise: [::]:1 is not an address that others can"),
        (("--certificate-days", "0"), 2, "--certificate-days: must be 1 to 3650 days, not 0"),
        (("--certificate-days", "x"), 2, "--certificate-days: must be 1 to 3650 days, not 'x'"),
    ],
)
def test_a_wrong_wish_is_refused_before_anything_is_written(
    muslin, state, flags, code, says
) -> None:
    ran = muslin("init", *(("--name", "a") if "--name" not in flags else ()), *flags)
    assert ran.code == code
    assert says in ran.err
    assert not state.exists()


def some_token(expires: float | None = None) -> JoinToken:
    return JoinToken(
        id=bytes(16),
        secret=bytes(32),
        static=bytes(32),
        member=NodeId(bytes(32)),
        authority_fingerprint=bytes(16),
        endpoints=(Endpoint("192.0.2.1", 6875),),
        expires=int(expires or time.time() + 60),
    )


def joined(name: str, cidr: str = "10.244.0.0/16"):
    node = found_node(
        name,
        cidr=ip_network(cidr),
        cidr6=None,
        block_prefix=24,
        entropy=os.urandom,
        wall=time.time(),
    )
    return replace(node, authorities=())


def test_join_stores_what_the_member_gave(muslin, state, monkeypatch) -> None:
    asked: list[tuple[JoinToken, str]] = []

    def join(token, name, *, entropy):
        asked.append((token, name))
        return joined(name)

    monkeypatch.setattr(joiner, "join", join)
    token = some_token()
    ran = muslin("join", str(token), "--name", "vm2", "--listen", "[::]:7000")
    assert ran.code == 0
    assert asked == [(token, "vm2")]
    node = load_node(StateFolder(state))
    assert ran.out.startswith(f"joined cluster {node.cluster.id.hex()} as node vm2\n")
    assert (state / "config.toml").exists()
    assert not (state / "authority.key").exists()


def test_a_token_is_read_from_where_others_cannot(muslin, state, monkeypatch, tmp_path) -> None:
    asked: list[JoinToken] = []

    def join(token, name, *, entropy):
        asked.append(token)
        return joined(name)

    monkeypatch.setattr(joiner, "join", join)
    token = some_token()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{token}\n"))
    assert muslin("join", "-", "--name", "vm2").code == 0
    shutil.rmtree(state)
    file = tmp_path / "token"
    file.write_text(f"{token}\n")
    assert muslin("join", "--token-file", str(file), "--name", "vm2").code == 0
    assert asked == [token, token]


def test_a_token_comes_from_one_place(muslin, tmp_path) -> None:
    assert muslin("join").code == 2
    assert muslin("join", "-", "--token-file", "x").code == 2
    missing = tmp_path / "none"
    ran = muslin("join", "--token-file", str(missing), "--name", "vm2")
    assert ran.err == f"muslin: cannot join: reading {missing}: no such file or directory\n"


def test_no_part_of_a_bad_token_is_in_the_error(muslin) -> None:
    for text in (
        str(some_token())[:-2],
        "muslin7-" + str(some_token())[8:],
        str(some_token()) + "A",
    ):
        ran = muslin("join", text, "--name", "vm2")
        assert ran.code == 1
        assert not any(text[at : at + 8] in ran.err for at in range(8, len(text) - 8))


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("hello", "this is not a join token"),
        (str(some_token())[:-2], "the join token is damaged"),
        ("muslin7-abc", "version 7"),
        (str(some_token(expires=1000)), "this token has expired"),
    ],
)
def test_a_bad_token_is_refused_before_anything_is_touched(muslin, state, token, says) -> None:
    ran = muslin("join", token, "--name", "vm2")
    assert ran.code == 1
    assert says in ran.err
    assert not state.exists()


def test_a_refusal_of_the_authority_is_shown_with_its_fix(muslin, state, monkeypatch) -> None:
    def join(*_: object, **__: object) -> None:
        raise RefusedError("name-taken", "a node named vm2 exists", "choose another with --name")

    monkeypatch.setattr(joiner, "join", join)
    ran = muslin("join", str(some_token()), "--name", "vm2")
    assert ran.err == ("muslin: cannot join: a node named vm2 exists: choose another with --name\n")
    assert StateFolder(state).used_by() is None


def test_a_cluster_that_overlaps_a_route_of_this_machine_does_not_cost_the_membership(
    muslin, state, monkeypatch
) -> None:
    """The token is spent when the range is known; `up` refuses until the route is gone."""
    monkeypatch.setattr(joiner, "join", lambda *_, **__: joined("vm2", "10.20.0.0/16"))
    ran = muslin("join", str(some_token()), "--name", "vm2")
    assert ran.code == 0
    assert ran.err == (
        "muslin: the daemon will not start: the cluster range 10.20.0.0/16 overlaps the host route "
        "10.20.0.0/16 dev eth0: remove that route, or make the cluster with another --cidr\n"
    )
    assert load_node(StateFolder(state)).certificate.name == "vm2"


def test_a_folder_in_use_does_not_cost_the_token(muslin, state, monkeypatch) -> None:
    monkeypatch.setattr(joiner, "join", lambda *_, **__: pytest.fail("the member was asked"))
    folder = StateFolder(state)
    folder.create()
    with folder.locked():
        ran = muslin("join", str(some_token()), "--name", "vm2")
    assert ran.code == 1
    assert re.search(r"is in use by process \d+", ran.err)


def test_leave_says_who_knows(muslin, daemon, state) -> None:
    ran = muslin("leave")
    assert ran.code == 0
    assert ran.out.startswith("left the cluster; other nodes that confirmed it: 1\n")
    assert daemon.stopping


def test_remove_says_what_it_did_and_an_alive_node_needs_force(muslin, daemon) -> None:
    ran = muslin("remove", "node9")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "removed node9: its certificate is revoked, its pods are gone\n"
    ran = muslin("remove", "node2")
    assert ran.code == 1
    assert ran.err == "muslin: cannot remove node2: node2 is ready: use --force\n"
    assert muslin("remove", "node2", "--force").code == 0
