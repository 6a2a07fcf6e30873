"""Tokens and certificates by hand, on real nodes.

node1 -- founded the cluster     node2 -- a member, or about to be     node3 -- made by hand
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.machines import Machine, Yard
from tests.support.pings import Pings
from tests.support.privileged import NEEDS_KERNEL
from tests.support.traffic import is_answered, reaches
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

SOON = 30.0
"""Seconds, for what takes one or two, on a machine that may be busy with other things."""


OLD_AND_NEW = ["in-use", "trusted"]


def by_hand(machine: Machine, signer: Machine, notes: Path, *flags: object) -> str:
    """Carry a request to the signer and the certificate back, in files; the certificate."""
    request, certificate = notes / "request", notes / "certificate"
    request.write_text(machine.says("cert", "request", "--name", machine.name))
    piped = ("sh", "-c", f'exec "$@" < {request} > {certificate}', "sh")
    done = signer.types("cert", "sign", "-", *flags, before=piped)
    assert done.returncode == 0, done.stderr
    return certificate.read_text().strip()


# -- tokens ----------------------------------------------------------------------------------------


def test_a_token_is_listed_used_and_revoked(node1: Machine, yard: Yard) -> None:
    unused, used = (node1.says("token").strip() for _ in range(2))
    rows = node1.shows("token", "list")
    assert [row["state"] for row in rows][-2:] == ["unused", "unused"]
    assert unused not in node1.says("token", "list", "-o", "wide")
    node2, node3 = yard.machines[1:]
    node2.says("join", used, "--name", "node2")
    by_id = {row["id"]: row for row in node1.shows("token", "list")}
    (spent,) = (row for row in by_id.values() if row["node"])
    assert (spent["state"], spent["node"]) == ("used", "node2")
    (left,) = (row for row in by_id.values() if row["state"] == "unused")
    said = node1.says("token", "revoke", left["id"][:8])
    assert said == f"revoked token {left['id'][:8]}: it admits nobody any more\n"
    done = node3.types("join", unused, "--name", "node3")
    assert done.returncode == 1
    assert done.stderr == (
        "muslin: cannot join: this token was revoked: make another token with muslin token\n"
    )
    assert "stays a member: muslin remove node2 ends that" in node1.says(
        "token", "revoke", spent["id"]
    )
    node2.up()
    eventually(lambda: len(node1.get("nodes")) == 2, within=SOON)
    node1.stop()
    node1.up()
    states = {row["id"]: row["state"] for row in node1.shows("token", "list")}
    assert states == {left["id"]: "revoked", spent["id"]: "revoked"}


# -- certificates by hand --------------------------------------------------------------------------


def test_a_node_made_without_a_network_comes_up_and_reaches_pods(make_yard, tmp_path) -> None:
    """The founder's daemon does not run while it signs."""
    yard = make_yard(2)
    founder, new = yard.machines
    yard.found()
    founder.says("pod", "add", "web")
    founder.stop()
    certificate = by_hand(new, founder, tmp_path)
    pin = founder.shows("cert", "show")["authority"]
    assert new.types("up").returncode == 1
    refused = new.types("cert", "install", certificate, "--authority", "0" * 32)
    assert refused.returncode == 1
    new.says("cert", "install", certificate, "--authority", pin)
    founder.up()
    new.up()
    new.says("pod", "add", "db")
    for one in (founder, new):
        eventually(lambda one=one: len(one.get("pods")) == 2, within=SOON)
    web, db = founder.place("web"), new.place("db")
    assert is_answered(web, db.address)
    assert is_answered(db, web.address6)
    eventually(lambda: founder.types("status").returncode == 0, within=SOON)
    shown = founder.shows("cert", "show", new.name)
    assert (shown["name"], shown["issuer"]) == (new.name, new.shows("cert", "show")["issuer"])


def test_a_running_daemon_signs_and_never_twice_for_one_name(
    node1: Machine, yard, tmp_path
) -> None:
    node3 = yard.machines[2]
    certificate = by_hand(node3, node1, tmp_path, "--days", 5, "--route", "192.0.2.0/24")
    node3.says(
        "cert", "install", certificate, "--authority", node1.shows("cert", "show")["authority"]
    )
    shown = node3.shows("cert", "show")
    assert shown["routes"] == ["192.0.2.0/24"]
    assert 4 * 86_400 < shown["remaining"] <= 5 * 86_400
    other = ("--state", tmp_path / "other")
    asked = node3.says("cert", "request", "--name", "node3", *other).strip()
    done = node1.types("cert", "sign", asked)
    assert done.returncode == 1
    assert "a node named node3 exists in the cluster" in done.stderr
    assert re.fullmatch(r"muslin: cannot sign the request: [^\n]+\n", done.stderr)
    node3.up()
    eventually(lambda: "node3" in {row["name"] for row in node1.get("nodes")}, within=SOON)


def test_a_node_gets_another_certificate_by_hand_while_it_runs_and_while_it_does_not(
    make_yard, tmp_path
) -> None:
    yard = make_yard(2)
    founder, member = yard.machines
    yard.found()
    founder.says("pod", "add", "web")
    yard.join(member)
    member.says("pod", "add", "db")
    eventually(lambda: len(founder.get("pods")) == 2, within=SOON)
    serials = [member.shows("cert", "show")["serial"]]

    def renew(days: int) -> None:
        certificate = by_hand(member, founder, tmp_path, "--days", days)
        member.says("cert", "install", certificate)
        shown = member.shows("cert", "show")
        assert shown["remaining"] > (days - 1) * 86_400
        serials.append(shown["serial"])

    def seen() -> bool:
        return founder.shows("cert", "show", member.name)["serial"] == serials[-1]

    renew(200)
    eventually(seen, within=SOON)
    assert is_answered(founder.place("web"), member.place("db").address)
    member.stop()
    renew(300)
    assert serials == sorted(set(serials))
    member.up()
    assert member.shows("cert", "show")["serial"] == serials[-1]
    eventually(seen, within=SOON)
    eventually(lambda: reaches(founder.place("web"), member.place("db").address), within=SOON)


# -- the authority's key under a passphrase --------------------------------------------------------


def test_a_locked_authority_carries_packets_and_admits_nobody_until_it_is_unlocked(
    make_yard, tmp_path
) -> None:
    yard = make_yard(3)
    founder, member, late = yard.machines
    words, wrong = (tmp_path / name for name in ("words", "wrong"))
    for file in (words, wrong):
        file.write_text(f"the {file.name}\n")
        file.chmod(0o600)
    yard.found("--passphrase-file", words)
    founder.says("authority", "unlock", "--passphrase-file", words)
    yard.join(member)
    founder.says("pod", "add", "web")
    member.says("pod", "add", "db")
    founder.stop()
    founder.up()
    eventually(lambda: reaches(founder.place("web"), member.place("db").address), within=SOON)
    done = founder.types("status")
    assert (done.returncode, "authority-locked" in done.stdout) == (0, True)
    token = founder.says("token").strip()
    done = late.types("join", token, "--name", "late")
    assert done.stderr == (
        "muslin: cannot join: the authority's key is locked: "
        "run muslin authority unlock on the node that holds it\n"
    )
    done = founder.types("authority", "unlock", "--passphrase-file", wrong)
    assert done.stderr == (
        "muslin: cannot unlock the authority's key: the passphrase is wrong: try again\n"
    )
    founder.says("authority", "unlock", "--passphrase-file", words)
    late.says("join", token, "--name", "late")
    assert founder.shows("status")["notices"] == []
    founder.stop()
    file = ("env", f"MUSLIN_PASSPHRASE_FILE={wrong}")
    done = founder.types("up", before=file)
    assert (done.returncode, "the passphrase is wrong" in done.stderr) == (1, True)
    with founder.running("up", before=("env", f"MUSLIN_PASSPHRASE_FILE={words}")):
        eventually(lambda: founder.types("status").returncode == 0, within=SOON)
        assert founder.shows("status")["notices"] == []
    for log in yard.logs().values():
        assert "the words" not in log
        assert "the wrong" not in log


# -- another authority -----------------------------------------------------------------------------


def test_an_authority_is_replaced_by_hand_and_no_ping_is_lost(make_yard) -> None:
    yard = make_yard(3)
    founder, *members = yard.machines
    yard.found()
    for member in members:
        yard.join(member)
    for machine in yard.machines:
        machine.says("pod", "add", "web")
    for machine in yard.machines:
        eventually(lambda machine=machine: len(machine.get("pods")) == 3, within=SOON)
    far = members[0].place("web").address
    eventually(lambda: reaches(members[1].place("web"), far), within=SOON)
    before = founder.shows("authority", "list")
    with Pings(members[1].place("web"), far) as pings:
        founder.says("authority", "install", "--new")
        (new,) = (one for one in founder.shows("authority", "list") if one["state"] == "trusted")
        assert new["here"]
        for member in members:
            eventually(lambda member=member: states(member) == OLD_AND_NEW, within=SOON)
        founder.says("authority", "use", new["key"][:8])
        early = founder.types("authority", "remove", before[0]["key"][:8])

        def installed(machine: Machine) -> bool:
            request = machine.says("cert", "request").strip()
            line = founder.says("cert", "sign", request).strip()
            return machine.types("cert", "install", line).returncode == 0

        def renewed() -> bool:
            old, used = founder.shows("authority", "list")
            return not old["members"] and len(used["members"]) == 3

        for machine in yard.machines:  # by themselves they would in five minutes
            eventually(lambda machine=machine: installed(machine), within=SOON)
        eventually(renewed, within=SOON)
        founder.says("authority", "remove", before[0]["key"][:8])
        for member in members:
            issuers = {member.shows("cert", "show")["issuer"]}
            assert issuers == {new["fingerprint"]}
            eventually(lambda member=member: states(member) == ["removed", "in-use"], within=SOON)
    assert early.returncode == 1
    assert "would be cut off" in early.stderr
    assert pings.sent
    assert not pings.lost
    assert is_answered(founder.place("web"), far)
    for machine in yard.machines:
        eventually(lambda machine=machine: machine.types("status").returncode == 0, within=SOON)


def states(machine: Machine) -> list[str]:
    return [one["state"] for one in machine.shows("authority", "list")]
