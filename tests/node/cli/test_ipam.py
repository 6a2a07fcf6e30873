"""`muslin ipam` against a pretended daemon."""

from __future__ import annotations

import json

from overlay.audit import Finding
from overlay.errors import RefusedError


def test_nothing_wrong_is_said_and_ends_well(muslin, daemon) -> None:
    daemon.attached = ["web"]
    ran = muslin("ipam", "check")
    assert (ran.code, ran.out) == (0, "nothing is leaked or unreachable\n")
    assert json.loads(muslin("ipam", "check", "-o", "json").out) == []


def test_what_is_leaked_is_listed_and_not_freed(muslin, daemon) -> None:
    ran = muslin("ipam", "check")
    assert ran.code == 1
    assert "pod-lost" in ran.out
    assert daemon.engine.calls == []
    assert daemon.kept == []


def test_fix_frees_what_is_leaked_and_says_so(muslin, daemon) -> None:
    ran = muslin("ipam", "check", "--fix")
    assert ran.code == 0
    assert "freed: pod web" in ran.out
    assert daemon.engine.calls == [("release_lost", [])]


def test_what_fix_cannot_free_is_still_wrong(muslin, daemon) -> None:
    daemon.attached = ["web"]
    daemon.engine.findings = (Finding("blocks-unreachable", "2 blocks", "it is dead", "start it"),)
    daemon.strays = ("old",)
    ran = muslin("ipam", "check", "--fix", "-o", "json")
    assert ran.code == 1
    assert [(one["code"], one["frees"], one["fixed"]) for one in json.loads(ran.out)] == [
        ("blocks-unreachable", None, False),
        ("veth-stray", None, False),
    ]
    assert daemon.kept == []


def test_a_claim_says_whose_it_is_now(muslin, daemon) -> None:
    ran = muslin("ipam", "claim")
    assert (ran.code, ran.out) == (
        0,
        "this machine is node1: addresses and blocks are handed out again\n",
    )
    assert daemon.kept == [b"claimed"]


def test_a_claim_of_nothing_is_one_line(muslin, daemon, monkeypatch) -> None:
    def nothing(now: float) -> None:
        raise RefusedError("no-conflict", "no other machine is known", "there is nothing to claim")

    monkeypatch.setattr(daemon.engine, "claim", nothing)
    ran = muslin("ipam", "claim")
    assert ran.code == 1
    assert ran.err == (
        "muslin: cannot claim the identity: no other machine is known: there is nothing to claim\n"
    )


def test_reserved_addresses_are_shown_for_what_they_are_and_can_be_released(muslin, daemon) -> None:
    daemon.attached = ["web"]
    daemon.engine.reserve("docker", None, 0.0)
    ran = muslin("ipam", "check")
    assert ran.code == 0
    assert "nothing is leaked" in ran.out
    assert "10.244.0.77" in ran.out
    assert "docker" in ran.out
    (shown,) = json.loads(muslin("ipam", "check", "-o", "json").out)
    assert shown["code"] == "address-reserved"
    assert shown["what"] == "10.244.0.77 is reserved by docker"
    said = "10.244.0.77 is no longer reserved by docker\n"
    assert muslin("ipam", "release", "10.244.0.77").out == said
    assert muslin("ipam", "release", "10.244.0.77").err == (
        "muslin: cannot release 10.244.0.77: nobody has reserved it: "
        "see what is: muslin ipam check\n"
    )
    assert muslin("ipam", "release", "web").code == 2
