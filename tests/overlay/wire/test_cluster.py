"""Tests of overlay.wire.cluster."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2s
from ipaddress import IPv4Network, IPv6Network

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.drops import DropReason
from overlay.errors import AuthError, ConfigError, WireError
from overlay.wire.cluster import CLUSTER_MAX, Cluster, check_ranges, fingerprint_of, random_ula
from tests.support.clusters import AUTHORITY, make_cluster

NAMES = ["version", "id", "authority", "genesis", "cidr", "cidr6", "block_prefix"]
NAMES += ["created", "signature"]


def raw(**changes: object) -> bytes:
    """The encoding of the usual cluster with some fields replaced, signature not renewed."""
    values = msgpack.unpackb(make_cluster().encode())
    for name, value in changes.items():
        values[NAMES.index(name)] = value
    return msgpack.packb(values)


def test_encoding_is_the_documented_array_and_signature() -> None:
    cluster = make_cluster()
    head = (
        b"\x99\x01\xc4\x08" + bytes(range(8))
        + b"\xc4\x20" + AUTHORITY.public
        + b"\xc4\x20" + cluster.genesis
        + b"\xc4\x05" + bytes([10, 244, 0, 0, 16])
        + b"\xc4\x11" + bytes.fromhex("fd4d0075736c") + bytes(10) + bytes([48])
        + b"\x18"
        + b"\xce" + bytes.fromhex("6b49d200")
    )  # fmt: skip
    assert cluster.encode() == head + b"\xc4\x40" + cluster.signature
    assert cluster.signature == AUTHORITY.sign("cluster", b"\x98" + head[1:])
    assert cluster.signature.hex()[:32] == "06ad4e704fc65e50a06a6799600fadd3"
    assert len(cluster.encode()) <= CLUSTER_MAX


def test_decoding_gives_back_what_was_encoded() -> None:
    for cluster in (make_cluster(), make_cluster(cidr6=None), make_cluster("10.0.0.0/8")):
        decoded = Cluster.decode_untrusted(cluster.encode())
        assert decoded == cluster
        decoded.verify()


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 2},
        {"id": b"short"},
        {"authority": bytes(31)},
        {"cidr": bytes([10, 244, 0, 0, 33])},
        {"cidr": bytes([10, 244, 0, 1, 16])},
        {"cidr": bytes([127, 0, 0, 0, 16])},
        {"cidr": b""},
        {"cidr6": b"\xff"},
        {"cidr6": bytes(18)},
        {"block_prefix": 31},
        {"block_prefix": -1},
        {"block_prefix": True},
        {"created": 1 << 60},
        {"signature": bytes(63)},
    ],
)
def test_damaged_fields_are_refused(damage: dict[str, object]) -> None:
    with pytest.raises(WireError):
        Cluster.decode_untrusted(raw(**damage))


def test_other_encodings_of_the_same_values_are_refused() -> None:
    data = make_cluster().encode()
    assert raw() == data
    long_form = data.replace(b"\x18\xce", b"\xcc\x18\xce")  # 24 in two bytes
    with pytest.raises(WireError, match="canonical"):
        Cluster.decode_untrusted(long_form)
    with pytest.raises(WireError, match="canonical"):
        Cluster.decode_untrusted(msgpack.packb([*msgpack.unpackb(data), 0]))


@given(st.binary(max_size=CLUSTER_MAX + 8))
def test_random_bytes_raise_wire_error_only(data: bytes) -> None:
    with pytest.raises(WireError):
        Cluster.decode_untrusted(data)


def test_a_change_of_any_field_breaks_the_signature() -> None:
    cluster = make_cluster()
    for change in (
        {"id": bytes(8)},
        {"authority": bytes(32)},
        {"genesis": bytes(32)},
        {"cidr": IPv4Network("10.245.0.0/16")},
        {"cidr6": None},
        {"block_prefix": 25},
        {"created": 1},
    ):
        with pytest.raises(AuthError) as caught:
            replace(cluster, **change).verify()
        assert caught.value.reason is DropReason.BAD_CERTIFICATE


@pytest.mark.parametrize(
    ("cidr", "cidr6", "block_prefix", "key"),
    [
        ("127.0.0.0/16", None, 24, "--cidr"),
        ("169.254.0.0/16", None, 24, "--cidr"),
        ("224.0.0.0/8", None, 24, "--cidr"),
        ("0.0.0.0/0", None, 8, "--cidr"),
        ("10.244.0.0/16", None, 15, "--block-prefix"),
        ("10.244.0.0/16", None, 31, "--block-prefix"),
        ("10.0.0.0/8", None, 25, "--block-prefix"),
        ("10.244.0.0/16", "fe80::/48", 24, "--cidr6"),
        ("10.244.0.0/16", "ff00::/48", 24, "--cidr6"),
        ("10.244.0.0/16", "::/48", 24, "--cidr6"),
        ("10.244.0.0/16", "fd00::/57", 24, "--cidr6"),
    ],
)
def test_ranges_that_cannot_hold_a_cluster_name_the_setting(
    cidr: str, cidr6: str | None, block_prefix: int, key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_ranges(IPv4Network(cidr), IPv6Network(cidr6) if cidr6 else None, block_prefix)
    assert caught.value.key == key


@pytest.mark.parametrize(
    ("cidr", "cidr6", "block_prefix"),
    [
        ("10.244.0.0/16", "fd00::/56", 24),
        ("10.0.0.0/8", "fd00::/48", 24),
        ("192.168.7.0/24", "2001:db8::/64", 24),
        ("100.64.0.0/10", None, 26),
        ("10.1.0.0/28", "fd00::/62", 30),
    ],
)
def test_ordinary_ranges_are_accepted(cidr: str, cidr6: str | None, block_prefix: int) -> None:
    check_ranges(IPv4Network(cidr), IPv6Network(cidr6) if cidr6 else None, block_prefix)


def test_fingerprint_is_blake2s_of_the_authoritys_key() -> None:
    expected = blake2s(AUTHORITY.public, digest_size=16).digest()
    assert make_cluster().authority_fingerprint == expected == fingerprint_of(AUTHORITY.public)


def test_a_random_ula_is_fd_and_forty_random_bits() -> None:
    assert random_ula(lambda size: bytes(range(1, size + 1))) == IPv6Network("fd01:203:405::/48")
