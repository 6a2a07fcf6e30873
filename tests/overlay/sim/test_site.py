"""Tests of what machines share."""

from __future__ import annotations

from overlay.sim import World


def test_only_the_founder_holds_the_authoritys_key_and_all_share_the_secret():
    world = World(1)
    other = world.membership("node2")
    founder = world["node1"].membership
    assert other.authorities == ()
    assert founder.authorities
    assert (other.psk, other.cluster) == (founder.psk, founder.cluster)
    assert other.identity.node != founder.identity.node
