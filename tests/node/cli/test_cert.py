"""`muslin cert`: nodes made by hand, with and without a daemon beside."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import click
import pytest

from node.cli.cert import fingerprint
from node.founding import reserved
from node.identity import load_node
from node.state import StateFolder
from overlay.wire.certificate import Certificate
from overlay.wire.offline import CertificateRequest
from tests.node.cli.conftest import Muslin, Ran
from tests.node.cli.test_membership import FakeNetlink
from tests.node.test_requesting import rotated
from tests.support.clusters import signing_key, static_key
from tests.support.control import served

REQUEST = str(CertificateRequest.sign(signing_key(9), static_key(9).public, "vm9"))


@pytest.fixture
def authority(muslin: Muslin, tmp_path: Path, monkeypatch) -> Path:
    """The folder of a cluster's first node; its daemon does not run."""
    monkeypatch.setattr("node.kernel.netlink.Netlink", FakeNetlink)
    folder = tmp_path / "authority"
    flags = ("--name", "vm1", "--cidr", "10.30.0.0/20", "--advertise", "192.0.2.1")
    assert muslin("init", *flags, "--state", str(folder)).code == 0
    return folder


@pytest.fixture
def signed(muslin: Muslin, authority: Path) -> Ran:
    """What the authority's node prints for the request of this machine."""
    asked = muslin("cert", "request", "--name", "vm2")
    return muslin("cert", "sign", asked.out, "--state", str(authority))


def pin(muslin: Muslin, authority: Path) -> str:
    shown = muslin("cert", "show", "-o", "json", "--state", str(authority))
    return str(json.loads(shown.out)["authority"])


# -- the way of one node ---------------------------------------------------------------------------


def test_a_node_is_made_by_hand(muslin, state, authority, monkeypatch) -> None:
    asked = muslin("cert", "request", "--name", "vm2")
    assert asked.out.startswith("muslin-request1-")
    assert asked.out.count("\n") == 1
    compared = asked.err.removeprefix("request for vm2, fingerprint ").strip()
    monkeypatch.setattr("sys.stdin", io.StringIO(asked.out))
    made = muslin("cert", "sign", "-", "--days", "30", "--state", str(authority))
    assert (made.code, made.out.count("\n")) == (0, 1)
    assert made.out.startswith("muslin-cert1-")
    assert len(made.out) < 4096, "a terminal takes it at once"
    first, second = made.err.splitlines()
    assert first == f"for vm2: compare its request's fingerprint, {compared}"
    known = second.removeprefix("next, there: muslin cert install - --authority ")
    init = load_node(StateFolder(authority))
    assert known.replace("-", "") == init.cluster.authority_fingerprint.hex()
    monkeypatch.setattr("sys.stdin", io.StringIO(made.out))
    ran = muslin("cert", "install", "-", "--authority", known)
    assert ran.code == 0
    assert ran.out.splitlines() == [
        f"this is node vm2 of cluster {init.cluster.id.hex()}",
        f"keys and certificate are in {state}",
    ]
    assert ran.err == f"next: muslin --state {state} up\n"
    node = load_node(StateFolder(state))
    assert node.certificate.name == "vm2"
    lasts = node.certificate.not_after - time.time()
    assert 29 * 86_400 < lasts < 31 * 86_400
    shown = muslin("cert", "show").out
    assert "29d23h left" in shown
    assert known in shown


def test_nothing_secret_is_in_what_travels(muslin, state, authority, signed) -> None:
    asked = muslin("cert", "request")
    muslin("cert", "install", signed.out, "--authority", pin(muslin, authority))
    node = load_node(StateFolder(state))
    secrets = (node.psk, node.keys.signing.seed, node.keys.static.seed)
    for text in (asked.out, asked.err, signed.out, signed.err):
        assert not any(secret.hex() in text for secret in secrets)


def test_without_a_fingerprint_nothing_is_believed(muslin, state, signed) -> None:
    for flags, code, says in (
        ((), 2, "--authority: needed: muslin cert show prints it on the authority's node"),
        (("--authority", "3fa2"), 2, "'3fa2' is not a fingerprint: it has 32 hex digits"),
        (("--authority", "0" * 32), 1, "is not from the authority with that fingerprint"),
    ):
        ran = muslin("cert", "install", signed.out, *flags)
        assert (ran.code, says in ran.err) == (code, True), ran.err
    assert not (state / "state").exists()


def test_a_certificate_for_another_machine_is_refused_in_one_line(
    muslin, authority, signed, tmp_path
) -> None:
    other = ("--state", str(tmp_path / "other"))
    muslin("cert", "request", "--name", "vm3", *other)
    known = ("--authority", pin(muslin, authority))
    ran = muslin("cert", "install", signed.out, *known, *other)
    assert ran.err == (
        "muslin: cannot install the certificate: this certificate is for another machine's "
        "request: make another with muslin cert request here\n"
    )
    ran = muslin("cert", "install", signed.out[:-9], *known)
    assert "the certificate is damaged: copy the whole line again" in ran.err
    ran = muslin("cert", "install", REQUEST, *known)
    assert "this is not a certificate: copy the line that muslin cert sign prints" in ran.err


def test_verbs_that_need_a_node_say_what_a_waiting_folder_lacks(muslin, signed) -> None:
    for verb in (("up",), ("cert", "show")):
        assert "install it with muslin cert install" in muslin(*verb).err
    ran = muslin("init", "--name", "a")
    assert "waits for a certificate (request.key): install it with muslin cert install" in ran.err


# -- signing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (("--route", "10.30.1.0/24"), 1, "overlaps the cluster's own range"),
        (("--route", "0.0.0.0/0"), 1, "is a default route"),
        (("--route", "none", "--route", "192.168.1.0/24"), 2, "'none'"),
        (("--route", "192.168.1.1/24"), 2, "--route: 192.168.1.1/24 has host bits set"),
        (("--days", "0"), 2, "0 is not in the range"),
    ],
)
def test_what_may_not_be_certified_is_refused(muslin, authority, flags, code, says) -> None:
    ran = muslin("cert", "sign", REQUEST, *flags, "--state", str(authority))
    assert (ran.code, ran.out, says in ran.err) == (code, "", True), ran.err


def test_routes_are_in_the_certificate(muslin, state, authority) -> None:
    asked = muslin("cert", "request", "--name", "vm2").out
    routes = ("--route", "192.168.7.0/24", "--route", "2001:db8:7::/48")
    line = muslin("cert", "sign", asked, *routes, "--state", str(authority)).out
    muslin("cert", "install", line, "--authority", pin(muslin, authority))
    shown = json.loads(muslin("cert", "show", "own", "-o", "json").out)
    assert shown["routes"] == ["2001:db8:7::/48", "192.168.7.0/24"]
    assert "routes     2001:db8:7::/48,192.168.7.0/24\n" in muslin("cert", "show").out


def test_a_folder_in_use_by_something_else_signs_nothing(muslin, authority) -> None:
    with StateFolder(authority).locked():
        ran = muslin("cert", "sign", REQUEST, "--state", str(authority))
    assert ran.code == 1
    assert "is in use by process" in ran.err


def test_a_key_under_a_passphrase_signs_when_it_is_said(muslin, authority, tmp_path) -> None:
    words = tmp_path / "words"
    words.write_text("words\n")
    words.chmod(0o600)
    there = ("--state", str(authority))
    assert muslin("authority", "protect", "--passphrase-file", str(words), *there).code == 0
    ran = muslin("cert", "sign", REQUEST, *there)
    assert ran.err == (
        "muslin: cannot sign the request: the authority's key is locked: "
        "no daemon runs here to be told the passphrase: say it with --passphrase-file\n"
    )
    assert muslin("cert", "sign", REQUEST, "--passphrase-file", str(words), *there).code == 0


def test_one_line_of_standard_input_is_not_two_things(muslin, authority) -> None:
    ran = muslin("cert", "sign", "-", "--passphrase-file", "-", "--state", str(authority))
    assert (ran.code, "cannot both be standard input" in ran.err) == (2, True)


def test_a_daemon_signs_where_one_runs(muslin, daemon) -> None:
    flags = ("--days", "7", "--route", "192.0.2.0/24")
    ran = muslin("cert", "sign", REQUEST, *flags)
    assert (ran.code, ran.out) == (0, "muslin-cert1-x\n")
    assert ran.err.startswith("for vm9: compare its request's fingerprint, ")
    (call,) = daemon.engine.calls
    assert (call[1], [str(route) for route in call[2]]) == (7 * 86_400, ["192.0.2.0/24"])
    assert daemon.kept == [b"names"]
    muslin("cert", "sign", REQUEST)
    muslin("cert", "sign", REQUEST, "--route", "none")
    assert [call[1:] for call in daemon.engine.calls[1:]] == [(None, None), (None, ())]
    ran = muslin("cert", "sign", "hello")
    assert "this is not a request for a certificate: copy the line" in ran.err


# -- another certificate ---------------------------------------------------------------------------


@pytest.fixture
def node(muslin: Muslin, authority: Path, signed: Ran, state: Path) -> Path:
    """This machine's folder, as a node."""
    assert muslin("cert", "install", signed.out, "--authority", pin(muslin, authority)).code == 0
    return state


def test_a_node_gets_another_certificate_without_a_fingerprint(muslin, node, authority) -> None:
    asked = muslin("cert", "request").out
    line = muslin("cert", "sign", asked, "--days", "200", "--state", str(authority)).out
    ran = muslin("cert", "install", line)
    shown = json.loads(muslin("cert", "show", "-o", "json").out)
    assert ran.out == f"node vm2 uses the certificate with serial {shown['serial']} from now on\n"
    assert shown["remaining"] > 199 * 86_400
    ran = muslin("cert", "install", line, "--authority", "0" * 32)
    assert "is not from the authority with that fingerprint" in ran.err
    ran = muslin("cert", "request", "--name", "other")
    assert (ran.code, "--name: this node is called vm2" in ran.err) == (2, True)


def test_a_running_daemon_is_handed_the_certificate(muslin, node, authority) -> None:
    asked = muslin("cert", "request").out
    line = muslin("cert", "sign", asked, "--state", str(authority)).out
    with served(node) as daemon:
        assert muslin("cert", "install", line).code == 0
    ((what, certificate),) = daemon.engine.calls
    assert what == "install_certificate"
    assert Certificate.decode_untrusted(certificate).name == "vm2"
    assert daemon.kept == [b"certificate"]


def test_a_running_daemon_that_missed_a_rotation_is_to_be_stopped(muslin, node, authority) -> None:
    rotated(StateFolder(authority))
    asked = muslin("cert", "request").out
    line = muslin("cert", "sign", asked, "--days", "200", "--state", str(authority)).out
    with served(node) as daemon:
        ran = muslin("cert", "install", line)
    assert (ran.code, daemon.engine.calls) == (1, [])
    assert ran.err == (
        "muslin: cannot install the certificate: the authorities have changed since this node"
        " heard of them last: stop muslin up, install it again, start muslin up\n"
    )
    ran = muslin("cert", "install", line)
    assert "from now on" in ran.out
    assert (
        pin(muslin, authority) == json.loads(muslin("cert", "show", "-o", "json").out)["authority"]
    )


# -- looking ---------------------------------------------------------------------------------------


def test_a_daemon_shows_its_own_and_others_certificates(muslin, daemon) -> None:
    own, other = (
        json.loads(muslin("cert", "show", *which, "-o", "json").out) for which in ((), ("node2",))
    )
    assert (own["name"], other["name"]) == ("node1", "node2")
    assert set(own) == {
        "name",
        "id",
        "cluster",
        "serial",
        "issuer",
        "not_before",
        "not_after",
        "remaining",
        "routes",
        "authority",
    }
    assert own["authority"] == own["issuer"]
    assert "name: node2" in muslin("cert", "show", "node2", "-o", "yaml").out
    ran = muslin("cert", "show", "node3")
    assert ran.err == (
        "muslin: cannot show the certificate: no node node3 is known: see muslin get nodes\n"
    )


def test_another_nodes_certificate_needs_the_daemon(muslin, authority) -> None:
    ran = muslin("cert", "show", "vm2", "--state", str(authority))
    assert ran.code == 1
    assert "no daemon is running" in ran.err


def test_a_certificate_that_is_over_is_shown_as_such(muslin, authority, monkeypatch) -> None:
    later = time.time() + 4000 * 86_400
    monkeypatch.setattr("node.cli.cert.time.time", lambda: later)
    assert "over for" in muslin("cert", "show", "--state", str(authority)).out


# -- words -----------------------------------------------------------------------------------------


def test_every_verb_explains_itself_with_an_example(muslin) -> None:
    for verb in ("request", "sign", "install", "show"):
        ran = muslin("cert", verb, "--help")
        assert (ran.code, "Examples:" in ran.out) == (0, True)
    assert "Examples:" in muslin("cert", "--help").out


def test_a_fingerprint_is_32_digits() -> None:
    digits = "3fa2c81d0b7e99d41c55e0aa72f18b3c"
    assert fingerprint(digits.upper()).hex() == digits
    for text in (digits[:-1], digits + "0", "", "x" * 32):
        with pytest.raises(click.BadParameter):
            fingerprint(text)


def test_a_request_in_a_used_folder_that_is_locked_waits_for_nobody(muslin, state) -> None:
    with reserved(StateFolder(state)):
        ran = muslin("cert", "request", "--name", "vm2")
    assert ran.code == 1
    assert "is in use by process" in ran.err
