"""Tests of overlay.catalog.judge, and of what a catalog makes of its judgements."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overlay.catalog.catalog import Catalog
from overlay.catalog.judge import FORKS, Judge
from overlay.catalog.keys import deed_item
from overlay.catalog.records import sign_record
from overlay.catalog.removals import Removal, removal_content, sign_removal
from overlay.catalog.trust import ForkError, Trust
from overlay.faults import Fault
from overlay.ipam.deeds import sign_base
from overlay.keys import SigningKey
from overlay.types import BlockIndex
from overlay.wire.authority import Act, digest_of, list_item, sign_link
from overlay.wire.items import Item

from .world import AUTHORITY, CLUSTER, LIMITS, PLAN, WALL, identity, node

SECOND = SigningKey(b"second".ljust(32))
THIRD = SigningKey(b"third".ljust(32))
FOUNDED = Trust.founded(CLUSTER)


def step(trust: Trust, signer: SigningKey, act: Act, key: SigningKey, **options: object) -> Trust:
    made = sign_link(signer, CLUSTER, trust.links, act, key.public, time=WALL, **options)
    return trust.extended(made)


INSTALLED = step(FOUNDED, AUTHORITY, Act.INSTALL, SECOND)
USED = step(INSTALLED, AUTHORITY, Act.USE, SECOND)
ROTATED = step(USED, SECOND, Act.REMOVE, AUTHORITY)
REMOVAL = sign_removal(AUTHORITY, Removal(node("carol"), 3, "carol", WALL), cluster=CLUSTER.id)
BASE = sign_base(
    AUTHORITY, cluster=CLUSTER.id, block=BlockIndex(3), sequence=4, owner=node("node1")
)


def record(name: str, version: int = 1, key: SigningKey = AUTHORITY, **fields: object) -> Item:
    return sign_record(identity(name, authority=key), version=version, **fields)


def catalog_with(*items: Item, local: str = "node1") -> Catalog:
    catalog = Catalog(CLUSTER, PLAN, LIMITS, local=node(local))
    for item in items:
        assert learn(catalog, item)
    return catalog


def learn(catalog: Catalog, item: Item, wall: float | None = WALL) -> bool:
    taken = catalog.admit(item, wall) and catalog.apply(item)
    catalog.check_invariants()
    return taken


def test_a_certificate_counts_while_its_authority_is_trusted() -> None:
    catalog = catalog_with()
    assert not learn(catalog, record("bob", key=SECOND))
    assert learn(catalog, INSTALLED.item())
    assert learn(catalog, record("bob", key=SECOND))
    assert learn(catalog, record("dora"))
    assert learn(catalog, ROTATED.item())
    assert set(catalog.nodes) == {node("bob")}
    assert not learn(catalog, record("eve"))


def test_a_node_whose_certificate_is_void_loses_its_routes_and_gets_them_back() -> None:
    catalog = catalog_with(record("node1", blocks_in_use=[BlockIndex(0)]), local="bob")
    added = catalog.take_route_changes().added
    assert learn(catalog, ROTATED.item())
    assert catalog.take_route_changes().removed == tuple(prefix for prefix, _ in added)
    assert catalog.void[node("node1")].name == "node1"
    assert not learn(catalog, record("node1", 2, blocks_in_use=[BlockIndex(0)]))
    again = record("node1", 2, SECOND, blocks_in_use=[BlockIndex(0)])
    assert learn(catalog, again)
    assert catalog.take_route_changes().added == added
    assert not catalog.void


def test_a_void_record_is_not_replaced_by_an_older_one() -> None:
    catalog = catalog_with(record("bob", 5), ROTATED.item())
    older = record("bob", 4, SECOND)
    assert catalog.admit(older, WALL)
    assert not catalog.apply(older)
    assert learn(catalog, record("bob", 6, SECOND))


def test_a_record_that_was_admitted_before_the_list_came_has_no_effect_behind_it() -> None:
    catalog = catalog_with()
    late = record("bob")
    assert catalog.admit(late, WALL)
    assert learn(catalog, ROTATED.item())
    assert not catalog.apply(late)
    assert not catalog.nodes


def test_a_node_keeps_its_own_record_whatever_its_certificate_is_worth() -> None:
    catalog = catalog_with(record("node1"), ROTATED.item())
    assert set(catalog.nodes) == {node("node1")}
    assert learn(catalog, record("node1", 2))


def test_the_last_record_of_a_removed_node_goes_with_its_authority() -> None:
    catalog = catalog_with(record("carol"), REMOVAL)
    assert catalog.departed[node("carol")] is not None
    assert learn(catalog, ROTATED.item())
    assert catalog.departed[node("carol")] is None


def test_removals_and_bases_count_while_their_authority_is_trusted() -> None:
    for item in (REMOVAL, deed_item(BASE)):
        assert learn(catalog_with(USED.item()), item)
        assert not learn(catalog_with(ROTATED.item()), item)
    by_second = sign_removal(SECOND, Removal(node("bob"), 1, "bob", WALL), cluster=CLUSTER.id)
    assert not learn(catalog_with(), by_second)
    assert learn(catalog_with(ROTATED.item()), by_second)


def test_what_stands_counts_after_its_authority_was_removed() -> None:
    assert BASE.base is not None
    for item, content in (
        (REMOVAL, removal_content(REMOVAL)),
        (deed_item(BASE), BASE.base.signed_bytes(CLUSTER.id)),
    ):
        kept = step(USED, SECOND, Act.REMOVE, AUTHORITY, stands=[digest_of(content)])
        assert learn(catalog_with(kept.item()), item)


def test_what_is_in_force_stays_so_also_over_a_restart() -> None:
    catalog = catalog_with(REMOVAL, deed_item(BASE), ROTATED.item())
    assert node("carol") in catalog.removed
    restarted = catalog_with()
    stored = (ROTATED.item(), REMOVAL, deed_item(BASE))
    assert [learn(restarted, item, None) for item in stored] == [True] * 3
    assert not learn(catalog_with(ROTATED.item()), REMOVAL)
    stranger = sign_removal(THIRD, Removal(node("bob"), 1, "bob", WALL), cluster=CLUSTER.id)
    assert not learn(restarted, stranger, None), "of an authority that nobody ever installed"


def test_another_list_is_refused_and_remembered() -> None:
    catalog = catalog_with(ROTATED.item())
    fork = step(step(USED, AUTHORITY, Act.INSTALL, THIRD), AUTHORITY, Act.USE, THIRD)
    assert not learn(catalog, fork.item())
    assert catalog.judge.trust == ROTATED
    assert list(catalog.judge.forks.values()) == [fork.links[2]]
    assert not learn(catalog, fork.item())
    assert len(catalog.judge.forks) == 1
    forged = sign_link(THIRD, CLUSTER, USED.links, Act.INSTALL, THIRD.public, time=WALL)
    unproven = fork.item()._replace(body=fork.item().body.replace(fork.links[2].encode(), b""))
    assert not learn(catalog, unproven)
    assert forged.digest not in catalog.judge.forks


def test_few_forks_are_remembered() -> None:
    judge = Judge(CLUSTER, None, lambda _key: False)
    judge.admit(ROTATED.item())
    for number in range(FORKS + 3):
        other = SigningKey(bytes([number + 9]) * 32)
        fork = step(step(USED, AUTHORITY, Act.INSTALL, other), AUTHORITY, Act.USE, other)
        with pytest.raises(ForkError):
            judge.admit(fork.item())
    assert len(judge.forks) == FORKS


BOB = identity("bob").signing


@pytest.mark.parametrize(
    ("item", "fault"),
    [
        (record("eve", key=BOB), Fault.FORGED_CERTIFICATE),
        (
            sign_removal(BOB, Removal(node("eve"), 1, "eve", WALL), cluster=CLUSTER.id),
            Fault.FORGED_REMOVAL,
        ),
        (
            deed_item(
                sign_base(
                    BOB, cluster=CLUSTER.id, block=BlockIndex(3), sequence=4, owner=node("bob")
                )
            ),
            Fault.FORGED_BASE,
        ),
        (
            list_item([sign_link(BOB, CLUSTER, [], Act.INSTALL, SECOND.public, time=WALL)]),
            Fault.FORGED_LINK,
        ),
    ],
)
def test_what_a_node_signs_in_an_authoritys_place_is_a_lie(item: Item, fault: Fault) -> None:
    catalog = catalog_with()
    assert not learn(catalog, item)
    assert catalog.lie is None, "it may be of an authority that is not known yet"
    assert learn(catalog, record("bob"))
    assert not learn(catalog, item)
    assert catalog.lie is not None
    assert catalog.lie.fault is fault


def test_a_link_with_a_wrong_signature_is_a_lie() -> None:
    link = replace(INSTALLED.links[0], time=WALL + 1)
    catalog = catalog_with()
    assert not learn(catalog, list_item([link]))
    assert catalog.lie is not None
    assert catalog.lie.fault is Fault.FORGED_LINK


def test_a_fork_is_no_lie_of_whoever_passes_it_on() -> None:
    catalog = catalog_with(ROTATED.item(), record("bob", key=SECOND))
    fork = step(step(USED, AUTHORITY, Act.INSTALL, THIRD), AUTHORITY, Act.USE, THIRD)
    assert not learn(catalog, fork.item())
    assert catalog.lie is None
