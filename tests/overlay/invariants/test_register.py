"""Tests of the indexes: who holds what, kept up with every claim."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from overlay.invariants.register import Claims, Holder, Register
from overlay.types import BlockIndex, NodeId

A, B = Holder("a", NodeId(b"a" * 32)), Holder("b", NodeId(b"b" * 32))
steps = st.lists(st.tuples(st.sampled_from("abc"), st.sets(st.integers(0, 5))))


@given(steps)
def test_the_index_agrees_with_a_slow_count(steps):
    claims: Claims[int] = Claims()
    held: dict[str, set[int]] = {}
    for machine, keys in steps:
        new = keys - held.get(machine, set())
        expected = {
            key: {other for other, has in held.items() if key in has and other != machine}
            for key in new
        }
        held[machine] = keys
        holder = Holder(machine, NodeId(machine.encode()))
        found = {
            key: {other.machine for other in others}
            for key, others in claims.hold(machine, dict.fromkeys(keys, holder))
        }
        assert found == {key: others for key, others in expected.items() if others}
        shared = {key: {one.machine for one in holders} for key, holders in claims.shared()}
        slow = {key: {name for name, has in held.items() if key in has} for key in range(6)}
        assert shared == {key: names for key, names in slow.items() if len(names) > 1}


def test_a_holder_is_named_with_its_pod():
    assert str(A) == "a"
    assert str(A._replace(pod="web")) == "a/web"


def test_suspects_removed_nodes_and_forked_blocks_are_excused():
    register = Register(lambda public, message: True, lambda node: None)
    block = BlockIndex(3)
    assert not register.excused(block, A, B)
    register.removed.add(B.node)
    assert register.excused(block, A, B)
    register.removed.clear()
    register.suspects.add(A.node)
    assert register.excused(block, A, B)
    register.suspects.clear()
    register.forked.add(block)
    assert register.excused(block, A, B)
    assert not register.excused(BlockIndex(4), A, B)
