"""Certificates by hand, on disk: nothing is half done, whatever interrupts it."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import replace
from ipaddress import ip_network

import pytest

from node.authority_keys import write_keys
from node.config import NodeConfig
from node.errors import NodeError
from node.founding import check_unused, found_node, reserved, store_node
from node.identity import load_node
from node.journal import Journal, SystemCalls
from node.requesting import (
    install_new,
    install_renewal,
    is_waiting,
    open_renewal,
    request,
)
from node.signing import sign_here
from node.state import CLUSTER, IDENTITY, REQUEST, StateFolder
from overlay.catalog.trust import Trust, stored_trust
from overlay.errors import ConfigError, RefusedError
from overlay.keys import SigningKey
from overlay.offline import knows_list, seal
from overlay.renewal import present_identity
from overlay.types import Endpoint
from overlay.wire.authority import AUTHORITIES_KEY, Act, sign_link
from overlay.wire.certificate import issue_certificate
from overlay.wire.offline import CertificateRequest, Grant
from tests.node.test_identity import make_node

HERE = NodeConfig(advertise=(Endpoint("192.0.2.1", 6875),))


@pytest.fixture
def folder(tmp_path) -> StateFolder:
    return StateFolder(tmp_path / "new")


@pytest.fixture
def authority(tmp_path) -> StateFolder:
    made = StateFolder(tmp_path / "authority")
    kept = make_node()
    node = found_node(
        "node1",
        cidr=kept.cluster.cidr,
        cidr6=None,
        block_prefix=24,
        entropy=os.urandom,
        wall=time.time(),
    )
    with reserved(made):
        store_node(made, node, None)
    return made


def pin_of(authority: StateFolder) -> bytes:
    return load_node(authority).cluster.authority_fingerprint


def install(folder: StateFolder, authority: StateFolder, line: str) -> None:
    install_new(folder, line, pinned=pin_of(authority), wall=time.time())


# -- requesting ------------------------------------------------------------------------------------


def test_a_request_leaves_one_private_file_and_asks_the_same_again(folder) -> None:
    first = request(folder, "vm2", os.urandom)
    assert is_waiting(folder)
    assert {path.name for path in folder.path.iterdir()} == {"request.key", "lock"}
    assert stat.S_IMODE((folder.path / "request.key").stat().st_mode) == 0o600
    assert request(folder, None, os.urandom) == request(folder, "vm2", os.urandom) == first
    assert (first.name, first.cluster) == ("vm2", b"")
    other = request(folder, "vm3", os.urandom)
    assert (other.name, other.node, other.static) == ("vm3", first.node, first.static)
    assert request(folder, None, os.urandom) == other


def test_a_folder_that_waits_is_no_node_and_is_not_free(folder) -> None:
    request(folder, "vm2", os.urandom)
    with pytest.raises(ConfigError, match="waits for its certificate: install it with muslin cert"):
        load_node(folder)
    with pytest.raises(NodeError, match=r"waits for a certificate \(request.key\)") as caught:
        check_unused(folder)
    assert caught.value.code == "folder-used"


def test_a_request_that_cannot_be_stored_leaves_nothing(folder, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise NodeError("no space left on device")

    monkeypatch.setattr(StateFolder, "write", full)
    with pytest.raises(NodeError):
        request(folder, "vm2", os.urandom)
    assert not folder.path.exists()
    with pytest.raises(ConfigError) as caught:
        request(folder, "Vm_2", os.urandom)
    assert caught.value.key == "--name"
    assert not folder.path.exists()


def test_a_damaged_request_is_named(folder) -> None:
    request(folder, "vm2", os.urandom)
    folder.write(REQUEST, b"not it")
    with pytest.raises(ConfigError, match=r"request.key is unusable .* remove it and ask again"):
        request(folder, None, os.urandom)


def test_a_node_asks_with_its_own_keys_and_stores_nothing(authority) -> None:
    before = {path.name: path.read_bytes() for path in authority.path.iterdir()}
    node = load_node(authority)
    asked = request(authority, None, os.urandom)
    assert (asked.node, asked.static) == (node.identity.node, node.keys.static.public)
    assert (asked.name, asked.cluster) == ("node1", node.cluster.id)
    assert before == {path.name: path.read_bytes() for path in authority.path.iterdir()}
    with pytest.raises(ConfigError, match="this node is called node1"):
        request(authority, "other", os.urandom)


# -- signing and installing ------------------------------------------------------------------------


def test_a_node_is_made_without_any_network(folder, authority) -> None:
    asked = request(folder, "vm2", os.urandom)
    line = sign_here(authority, HERE, str(asked))
    install(folder, authority, line)
    node, founder = load_node(folder), load_node(authority)
    assert node.identity.node == asked.node
    assert node.cluster == founder.cluster
    assert node.psk == founder.psk
    assert node.authorities == ()
    assert node.state.boot == 0
    assert {item.key for item in node.state.items} == {b"n" + founder.certificate.node}
    assert not (folder.path / "request.key").exists()
    assert b"vm2" in founder.state.names
    assert founder.state.boot == 1, "what was signed under a start is never signed again"


def test_the_addresses_of_the_last_run_will_do(folder, authority) -> None:
    lines = [
        sign_here(authority, config, str(request(folder, "vm2", os.urandom)))
        for config in (HERE, NodeConfig())
    ]
    assert len(lines) == 2
    install(folder, authority, lines[1])


def test_without_any_address_nothing_is_signed(folder, authority) -> None:
    with pytest.raises(RefusedError) as caught:
        sign_here(authority, NodeConfig(), str(request(folder, "vm2", os.urandom)))
    assert caught.value.code == "no-endpoint"
    assert b"vm2" not in load_node(authority).state.names


def test_what_cannot_be_stored_is_not_signed(folder, authority, monkeypatch) -> None:
    asked = request(folder, "vm2", os.urandom)
    calls = iter([SystemCalls.write])

    def full_later(self: SystemCalls, handle: int, data: memoryview) -> int:
        write = next(calls, None)
        if write is None:
            raise OSError(28, "No space left on device")
        return write(self, handle, data)

    monkeypatch.setattr(SystemCalls, "write", full_later)
    with pytest.raises(NodeError, match="no space left"):
        sign_here(authority, HERE, str(asked))
    assert b"vm2" not in load_node(authority).state.names


def test_only_the_folder_of_the_authority_signs(folder, authority, tmp_path) -> None:
    install(folder, authority, sign_here(authority, HERE, str(request(folder, "a", os.urandom))))
    other = CertificateRequest.parse(str(request(StateFolder(tmp_path / "b"), "b", os.urandom)))
    with pytest.raises(RefusedError) as caught:
        sign_here(folder, HERE, str(other))
    assert caught.value.code == "not-authority"


def test_a_folder_in_use_signs_nothing(folder, authority) -> None:
    asked = request(folder, "vm2", os.urandom)
    with authority.locked(), pytest.raises(NodeError) as caught:
        sign_here(authority, HERE, str(asked))
    assert caught.value.code == "folder-locked"


def test_without_the_right_fingerprint_the_folder_goes_on_waiting(folder, authority) -> None:
    line = sign_here(authority, HERE, str(request(folder, "vm2", os.urandom)))
    with pytest.raises(RefusedError) as caught:
        install_new(folder, line, pinned=bytes(16), wall=time.time())
    assert caught.value.code == "wrong-authority"
    assert is_waiting(folder)
    install(folder, authority, line)


def test_nothing_is_installed_where_nothing_was_asked_for(folder, authority, tmp_path) -> None:
    line = sign_here(authority, HERE, str(request(folder, "vm2", os.urandom)))
    empty = StateFolder(tmp_path / "empty")
    empty.create()
    with pytest.raises(ConfigError, match="waits for no certificate: run muslin cert request"):
        install(empty, authority, line)
    other = StateFolder(tmp_path / "other")
    request(other, "vm2", os.urandom)
    with pytest.raises(ConfigError, match="for another machine's request"):
        install(other, authority, line)


@pytest.mark.parametrize("left", range(1, 5))
def test_an_installation_that_ends_early_can_be_done_again(
    folder, authority, monkeypatch, left
) -> None:
    """Killed after so many steps on the disk: the folder waits still, or is a node."""
    asked = request(folder, "vm2", os.urandom)
    line = sign_here(authority, HERE, str(asked))
    steps = iter(range(left))

    class KilledError(BaseException):
        """The process ends here."""

    def counted(step):
        def run(*arguments: object) -> object:
            if next(steps, None) is None:
                raise KilledError
            return step(*arguments)

        return run

    with monkeypatch.context() as patched:
        for owner, name in (
            (StateFolder, "write"),
            (SystemCalls, "rename"),
            (StateFolder, "remove"),
        ):
            patched.setattr(owner, name, counted(getattr(owner, name)))
        if left < 4:
            with pytest.raises(KilledError):
                install(folder, authority, line)
        else:
            install(folder, authority, line)
    if is_waiting(folder):
        assert left < 3
        with pytest.raises(ConfigError, match="waits for its certificate"):
            load_node(folder)
        assert request(folder, None, os.urandom) == asked
        install(folder, authority, line)
    assert load_node(folder).identity.node == asked.node
    assert folder.has(IDENTITY)
    assert folder.has(CLUSTER)


# -- another certificate for a node ----------------------------------------------------------------


@pytest.fixture
def node(folder, authority) -> StateFolder:
    asked = request(folder, "vm2", os.urandom)
    install(folder, authority, sign_here(authority, HERE, str(asked)))
    return folder


def present(folder: StateFolder):
    stored = load_node(folder)
    return present_identity(stored.identity, stored.state.certificate).certificate


def another(node: StateFolder, authority: StateFolder, **options: object):
    line = sign_here(authority, HERE, str(request(node, None, os.urandom)), **options)
    return open_renewal(node, line, pinned=None, wall=time.time())


def test_a_node_uses_its_latest_certificate(node, authority) -> None:
    before = present(node)
    routes = (ip_network("192.0.2.0/24"),)
    grant = another(node, authority, lifetime=200 * 86_400.0, routes=routes)
    assert (grant.psk, grant.items) == (b"", ())
    assert present(node) == before, "it was only looked at"
    install_renewal(node, grant, wall=time.time())
    assert present(node) == grant.certificate
    assert present(node).routes == routes
    assert load_node(node).state.items, "all else is as it was"
    install_renewal(node, grant, wall=time.time())  # again


def test_an_older_certificate_is_not_installed_over_a_newer_one(node, authority) -> None:
    old = another(node, authority, lifetime=200 * 86_400.0)
    new = another(node, authority, lifetime=300 * 86_400.0)
    install_renewal(node, new, wall=time.time())
    with pytest.raises(RefusedError) as caught:
        install_renewal(node, old, wall=time.time())
    assert caught.value.code == "bad-certificate"
    assert present(node) == new.certificate


def test_a_certificate_of_another_cluster_or_node_is_not_opened(
    node, authority, tmp_path, monkeypatch
) -> None:
    asked = str(request(StateFolder(tmp_path / "x"), "x", os.urandom))
    line = sign_here(authority, HERE, asked)
    with pytest.raises(ConfigError, match="for another machine's request"):
        open_renewal(node, line, pinned=None, wall=time.time())
    good = sign_here(authority, HERE, str(request(node, None, os.urandom)))
    with pytest.raises(RefusedError) as caught:
        open_renewal(node, good, pinned=bytes(16), wall=time.time())
    assert caught.value.code == "wrong-authority"
    open_renewal(node, good, pinned=pin_of(authority), wall=time.time())


def test_the_line_that_made_a_node_can_be_installed_once_more(folder, authority) -> None:
    """The first time ended just before `request.key` was removed."""
    line = sign_here(authority, HERE, str(request(folder, "vm2", os.urandom)))
    kept = (folder.path / "request.key").read_bytes()
    install(folder, authority, line)
    folder.write_raw("request.key", kept)
    assert not is_waiting(folder)
    before = load_node(folder).state
    grant = open_renewal(folder, line, pinned=None, wall=time.time())
    install_renewal(folder, grant, wall=time.time())
    assert load_node(folder).state == before
    assert not (folder.path / "request.key").exists()


# -- a member that was off while its authority was removed ---------------------------------------


def rotated(authority: StateFolder) -> None:
    """Another authority takes the place of the first, while no other node is there to hear."""
    with authority.locked():
        node = load_node(authority)
        second = SigningKey(os.urandom(32))
        write_keys(authority, [*node.authorities, second])
        trust, first = stored_trust(node.state.items, node.cluster), node.authorities[0]
        for act, key, by in (
            (Act.INSTALL, second, first),
            (Act.USE, second, first),
            (Act.REMOVE, first, second),
        ):
            link = sign_link(by, node.cluster, trust.links, act, key.public, time=1)
            trust = trust.extended(link)
        held = [item for item in node.state.items if item.key != AUTHORITIES_KEY]
        state = replace(node.state, items=(*held, trust.item()))
        (authority.path / "state").unlink()
        Journal.create(authority.path / "state", state.entries()).close()


@pytest.fixture
def member(folder, authority) -> StateFolder:
    install(folder, authority, sign_here(authority, HERE, str(request(folder, "vm2", os.urandom))))
    rotated(authority)
    return folder


def test_a_member_that_missed_a_rotation_comes_back_by_hand(member, authority) -> None:
    before = load_node(member)
    line = sign_here(authority, HERE, str(request(member, None, os.urandom)), lifetime=2e7)
    grant = open_renewal(member, line, pinned=None, wall=time.time())
    assert not knows_list(grant, before.state.items)
    install_renewal(member, grant, wall=time.time())
    node, founder = load_node(member), load_node(authority)
    assert node.fingerprint == founder.fingerprint != before.fingerprint
    assert node.identity.node == before.identity.node
    present = present_identity(node.identity, node.state.certificate).certificate
    assert stored_trust(node.state.items, node.cluster).trusts(present.issuer)
    assert knows_list(grant, node.state.items)
    records = {item.key: item for item in grant.items if item.key[:1] == b"n"}
    assert records
    assert records.items() <= {item.key: item for item in node.state.items}.items()


def test_a_list_that_does_not_continue_the_members_own_is_not_taken(member, authority) -> None:
    founder = load_node(authority)
    stolen, third = founder.authorities[0], SigningKey(os.urandom(32))
    line = sign_here(authority, HERE, str(request(member, None, os.urandom)), lifetime=2e7)
    grant = open_renewal(member, line, pinned=None, wall=time.time())
    install_renewal(member, grant, wall=time.time())
    fork = Trust.founded(founder.cluster)
    for act in (Act.INSTALL, Act.USE, Act.INSTALL, Act.USE):
        key = third if len(fork.links) < 2 else SigningKey(bytes([7]) * 32)
        signer = stolen if len(fork.links) < 2 else third
        link = sign_link(signer, founder.cluster, fork.links, act, key.public, time=1)
        fork = fork.extended(link)
    asked = CertificateRequest.parse(str(request(member, None, os.urandom)))
    certificate = issue_certificate(
        third,
        node=asked.node,
        static=asked.static,
        name=asked.name,
        cluster=founder.cluster.id,
        serial=1000,
        not_before=0,
        not_after=int(time.time()) + 10**9,
    )
    lie = Grant(founder.cluster, certificate, b"", (fork.item(),)).signed(third)
    with pytest.raises(RefusedError) as caught:
        open_renewal(member, seal(lie, asked.static, os.urandom), pinned=None, wall=time.time())
    assert caught.value.code == "wrong-authority"
    with pytest.raises(RefusedError):
        open_renewal(member, line, pinned=fork.fingerprint, wall=time.time())
