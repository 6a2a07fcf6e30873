"""A small cluster with real keys, for the tests of this folder."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from ipaddress import IPv4Network, IPv6Network

from overlay.config import Limits
from overlay.ipam.plan import BlockPlan
from overlay.keys import SigningKey, StaticKey
from overlay.wire.certificate import Identity, issue_certificate
from overlay.wire.cluster import found_cluster

LIMITS = Limits()
WALL = 1_750_000_000
YEAR = 365 * 86400
AUTHORITY = SigningKey(b"A" * 32)


def keys_of(name):
    seed = name.encode().ljust(32, b"\0")
    return SigningKey(seed), StaticKey(seed)


CLUSTER = found_cluster(
    AUTHORITY,
    genesis=keys_of("node1")[0].public,
    cidr=IPv4Network("10.244.0.0/20"),
    cidr6=IPv6Network("fd4d:75::/48"),
    block_prefix=24,
    created=WALL,
    entropy=lambda size: b"C" * size,
)
PLAN = BlockPlan(CLUSTER)
"""Sixteen blocks."""


@cache
def identity(
    name, *, key="", serial=1, cluster=CLUSTER.id, authority=AUTHORITY, lasts=YEAR, routes=()
):
    signing, static = keys_of(key or name)
    certificate = issue_certificate(
        authority,
        node=signing.public,
        static=static.public,
        name=name,
        cluster=cluster,
        serial=serial,
        not_before=WALL - 1,
        not_after=WALL + lasts,
        routes=routes,
    )
    return Identity(signing, static, certificate)


FORGER = SigningKey(b"X" * 32)


def forged(name, key=FORGER):
    """An identity whose certificate names the authority, which never signed it."""
    true = identity(name)
    certificate = replace(true.certificate, signature=b"")
    signature = key.sign("certificate", certificate.signed_bytes())
    return replace(true, certificate=replace(certificate, signature=signature))


def node(name):
    return keys_of(name)[0].public
