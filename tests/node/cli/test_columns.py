"""What `get` shows of each kind."""

from __future__ import annotations

import time

import pytest

from node.cli.columns import BY_NAME, KINDS, NODES, PODS, SESSIONS, since
from node.control import present
from tests.support.daemon import FACTS, snapshot


def items(kind) -> list[dict[str, object]]:
    return present.KINDS[kind.names[0]](snapshot(), FACTS)


def test_every_kind_of_the_daemon_has_columns() -> None:
    assert [kind.names[0] for kind in KINDS] == list(present.KINDS)
    assert BY_NAME["pod"] is BY_NAME["pods"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.names[0])
def test_columns_and_changing_keys_exist_in_the_objects(kind) -> None:
    for item in items(kind):
        assert {column.key for column in kind.columns} <= set(item)
        assert kind.changing <= set(item)
        assert len(kind.row(item, wide=True)) == len(kind.headers(wide=True))


def test_a_node_reads_well() -> None:
    headers, row = NODES.headers(wide=False), NODES.row(items(NODES)[1], wide=False)
    assert dict(zip(headers, row, strict=True)) == {
        "name": "node2",
        "state": "ready",
        "address": "10.244.1.1",
        "endpoint": "192.0.2.2:6875",
        "path": "direct",
        "rtt": "0.42ms",
        "seen": "1s",
        "pods": "1",
    }


def test_wide_adds_columns_and_drops_none() -> None:
    assert set(NODES.headers(wide=True)) - set(NODES.headers(wide=False)) == {
        "address6", "loss", "blocks", "certificate", "version",
    }  # fmt: skip


def test_a_pod_is_selected_by_its_name_or_with_its_node() -> None:
    web, db = items(PODS)
    assert PODS.matches(web, "web")
    assert PODS.matches(web, "node1/web")
    assert not PODS.matches(web, "node2/web")
    assert PODS.name_of(db)[0] == "node2/db"


def test_age_and_counters_are_no_news() -> None:
    (before,) = items(SESSIONS)
    assert SESSIONS.news([before]) == SESSIONS.news([{**before, "tx_bytes": 9}])
    assert SESSIONS.news([before]) != SESSIONS.news([{**before, "mtu": 9}])


def test_a_moment_is_shown_as_its_age() -> None:
    assert since(present.moment(time.time() - 90)) == "1m30s"
    assert since(present.moment(time.time() + 90)) == "0s"
    assert since(None) == ""


def test_drops_are_a_sum_and_wide_their_reasons() -> None:
    row = dict(
        zip(SESSIONS.headers(wide=True), SESSIONS.row(items(SESSIONS)[0], wide=True), strict=True)
    )
    assert (row["drops"], row["reasons"]) == ("2", "replayed=2")


def test_offloads_read_in_short_names_and_are_wide() -> None:
    column = next(column for column in SESSIONS.columns if column.header == "offloads")
    assert column.wide
    names = ["udp_gso", "udp_gro", "checksum", "tso", "uso"]
    assert column.show(names) == "gso gro csum tso uso"
    assert column.show([]) == "none"
