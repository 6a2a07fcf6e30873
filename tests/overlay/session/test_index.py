"""The index table: unique indexes, and what each of them names."""

from __future__ import annotations

import random

from overlay.session.index import PER_TOKEN, IndexTable, lane_index
from overlay.session.suites import Suite
from overlay.session.transport import Keypair
from overlay.types import NodeId


def keypair(index: int, at: float = 0.0) -> Keypair:
    return Keypair(
        (b"a" * 32, b"b" * 32),
        suite=Suite.AES_256_GCM,
        local_index=index,
        remote_index=0,
        initiator=False,
        created_at=at,
        expires_at=at + 180,
    )


def scripted(*values: int) -> IndexTable[str]:
    queue = [value.to_bytes(4, "big") for value in values]
    return IndexTable(lambda _: queue.pop(0), limit=2)


def test_an_index_is_never_zero_and_never_names_two_things():
    table = scripted(0, 5, 6, 7)
    table.add(keypair(5))
    table.pending[6] = "attempt"
    assert table.draw() == 7


def test_indexes_use_all_32_bits():
    table: IndexTable[str] = IndexTable(random.Random(1).randbytes, limit=2)
    drawn = [table.draw() for _ in range(200)]
    assert max(drawn) > 0xF000_0000
    assert min(drawn) < 0x1000_0000


def test_the_dictionary_of_keypairs_stays_the_same_object():
    table = scripted()
    seen = table.keypairs
    table.add(keypair(1))
    table.release(1)
    table.add(keypair(2))
    assert table.keypairs is seen
    assert list(seen) == [2]


def test_beyond_the_limit_the_oldest_half_open_keypair_is_named():
    table = scripted()
    first, second, third = keypair(1, 0.0), keypair(2, 1.0), keypair(3, 2.0)
    assert table.add_half_open(first) is None
    assert table.add_half_open(second) is None
    assert table.add_half_open(third) is first
    table.release(1)
    assert table.oldest_half_open() is second
    assert list(table.half_open()) == [second, third]
    table.check_invariants()


def test_who_has_a_token_pushes_out_only_keypairs_of_the_same_token():
    table: IndexTable[str] = IndexTable(random.Random(1).randbytes, limit=100)
    members = keypair(1000)
    assert table.add_half_open(members) is None
    flood = [keypair(index) for index in range(1, 30)]
    for made in flood:
        made.joiner_token = b"stolen"
        pushed_out = table.add_half_open(made)
        if pushed_out is not None:
            table.release(pushed_out.local_index)
    assert list(table.half_open()) == [members, *flood[-PER_TOKEN:]]
    table.check_invariants()


def test_a_confirmed_keypair_stays_but_is_half_open_no_longer():
    table = scripted()
    table.add_half_open(keypair(1))
    table.confirm(table.keypairs[1])
    table.confirm(table.keypairs[1])
    assert table.oldest_half_open() is None
    assert table.snapshot() == ((1,), (), ())


def test_releasing_makes_an_index_free_whatever_it_named():
    table = scripted(9, 9, 9)
    for fill in (
        lambda: table.pending.__setitem__(9, "attempt"),
        lambda: table.add(keypair(9)),
        lambda: table.add_half_open(keypair(9)),
    ):
        fill()
        table.release(9)
        assert table.draw() == 9
    table.release(9)


NODE = NodeId(b"n" * 32)


def of_node(index: int) -> Keypair:
    made = keypair(index)
    made.node = NODE
    return made


def test_lanes_of_a_peer_get_keypairs_now_and_in_future_and_lose_them_with_the_first():
    table = scripted()
    first = of_node(1)
    table.add(first)
    table.set_lanes(NODE, 3, [first])
    table.add(of_node(2))
    table.check_invariants()
    lanes = {lane_index(index, lane << 4) for index in (1, 2) for lane in range(3)}
    assert set(table.keypairs) == lanes
    widened = table.keypairs[lane_index(1, 0x10)]
    table.set_lanes(NODE, 5, [first])
    assert table.keypairs[lane_index(1, 0x10)] is widened, "its counters go on"
    table.release(1)
    assert set(table.keypairs) == {lane_index(2, lane << 4) for lane in range(3)}
    table.forget_lanes(NODE)
    table.add(of_node(4))
    assert lane_index(4, 0x10) not in table.keypairs


def test_whose_keypairs_changed_is_remembered_and_joiners_are_nobody():
    table = scripted()
    table.add(keypair(1))
    table.release(1)
    assert table.changed == set()
    table.add_half_open(of_node(2))
    assert table.changed == {NODE}
    table.changed.clear()
    table.confirm(table.keypairs[2])
    assert table.changed == {NODE}
    table.changed.clear()
    table.release(2)
    assert table.changed == {NODE}
