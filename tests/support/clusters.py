"""A small cluster with well-known keys: the same bytes in every test run."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

from overlay.keys import SigningKey, StaticKey
from overlay.wire.certificate import Identity, issue_certificate
from overlay.wire.cluster import Cluster, found_cluster

WALL = 1_800_000_000
YEAR = 365 * 86_400

AUTHORITY = SigningKey(bytes([0xA0]) * 32)


def signing_key(number: int) -> SigningKey:
    """The identity key of node `number`, 0 <= number < 65536."""
    return SigningKey(b"sign" + number.to_bytes(2, "big") + bytes(26))


def static_key(number: int) -> StaticKey:
    """The handshake key of node `number`."""
    return StaticKey(b"stat" + number.to_bytes(2, "big") + bytes(26))


def make_cluster(
    cidr: str = "10.244.0.0/16",
    cidr6: str | None = "fd4d:75:736c::/48",
    block_prefix: int = 24,
) -> Cluster:
    """A cluster founded by node 0."""
    return found_cluster(
        AUTHORITY,
        genesis=signing_key(0).public,
        cidr=IPv4Network(cidr),
        cidr6=None if cidr6 is None else IPv6Network(cidr6),
        block_prefix=block_prefix,
        created=WALL,
        entropy=lambda size: bytes(range(size)),
    )


def make_identity(number: int, cluster: Cluster | None = None) -> Identity:
    """Node `number` with a certificate for a year from `WALL`, named `node<number>`."""
    cluster = cluster or make_cluster()
    signing, static = signing_key(number), static_key(number)
    certificate = issue_certificate(
        AUTHORITY,
        node=signing.public,
        static=static.public,
        name=f"node{number}",
        cluster=cluster.id,
        serial=number + 1,
        not_before=WALL,
        not_after=WALL + YEAR,
    )
    return Identity(signing, static, certificate)


def resign(cluster: Cluster) -> Cluster:
    """`cluster` with a signature that fits its fields."""
    return replace(cluster, signature=AUTHORITY.sign("cluster", cluster.signed_bytes()))
