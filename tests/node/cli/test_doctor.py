"""`muslin doctor` against a pretended daemon."""

from __future__ import annotations

import json

from tests.support.daemon import NODE2

ALIKE = '{"version": "0.1.0", "mtu": 1500, "ip_forward": 1}'
OTHER = '{"version": "0.2.0", "mtu": 1500, "ip_forward": 1}'


def test_machines_that_are_alike_end_well(muslin, daemon) -> None:
    daemon.engine.machines[NODE2] = ALIKE
    ran = muslin("doctor")
    assert ran.code == 0
    head, *rows = ran.out.splitlines()
    assert head.split() == ["CHECK", "STATE", "NODES", "WHAT", "FIX"]
    assert all(row.split()[1] == "ok" for row in rows)


def test_the_odd_one_is_named_and_the_exit_code_says_so(muslin, daemon) -> None:
    daemon.engine.machines[NODE2] = OTHER
    ran = muslin("doctor")
    assert ran.code == 1
    (row,) = (line for line in ran.out.splitlines() if line.startswith("version"))
    assert row.split()[:3] == ["version", "odd", "node2"]
    assert "update it" in row


def test_programs_get_objects(muslin, daemon) -> None:
    daemon.engine.machines[NODE2] = OTHER
    found = json.loads(muslin("doctor", "-o", "json").out)
    (version,) = (one for one in found if one["check"] == "version")
    assert version["nodes"] == ["node2"]
    assert set(version) == {"check", "state", "nodes", "what", "fix"}


def test_a_timeout_that_is_none_is_wrong_usage(muslin, daemon) -> None:
    assert muslin("doctor", "--timeout", "0").code == 2
    assert muslin("doctor", "--timeout", "nan").code == 2


def test_without_a_daemon_it_is_one_line(muslin) -> None:
    ran = muslin("doctor")
    assert ran.code == 1
    assert ran.err.startswith("muslin: cannot examine the cluster: ")
    assert len(ran.err.splitlines()) == 1
