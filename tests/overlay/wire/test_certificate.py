"""Tests of overlay.wire.certificate."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.catalog.trust import Trust
from overlay.drops import DropReason
from overlay.errors import AuthError, ConfigError, WireError
from overlay.wire.certificate import (
    CERTIFICATE_MAX,
    Certificate,
    Identity,
    check_name,
    issue_certificate,
)
from tests.support.clusters import (
    AUTHORITY,
    WALL,
    YEAR,
    make_cluster,
    make_identity,
    signing_key,
    static_key,
)
from tests.support.reencode import malleated, reencoded


def test_encoding_is_the_documented_array_and_signature() -> None:
    certificate = make_identity(1).certificate
    head = (
        b"\x9b\x01\xc4\x20" + signing_key(1).public
        + b"\xc4\x20" + static_key(1).public
        + b"\xa5node1"
        + b"\xc4\x08" + bytes(range(8))
        + b"\x02"
        + b"\xce" + WALL.to_bytes(4, "big")
        + b"\xce" + (WALL + YEAR).to_bytes(4, "big")
        + b"\xc4\x20" + AUTHORITY.public
        + b"\x90"
    )  # fmt: skip
    assert certificate.encode() == head + b"\xc4\x40" + certificate.signature
    assert certificate.signature == AUTHORITY.sign("certificate", b"\x9a" + head[1:])
    assert certificate.signature.hex()[:32] == "a6fa09cb3ef28694128da4cae3fbcb66"


def test_the_longest_certificate_is_within_the_limit() -> None:
    certificate = issue_certificate(
        AUTHORITY,
        node=signing_key(1).public,
        static=static_key(1).public,
        name="x" * 63,
        cluster=bytes(8),
        serial=2**64 - 1,
        not_before=253_402_300_799,
        not_after=253_402_300_799,
        routes=[IPv6Network(f"2001:db8:{number}::/48") for number in range(8)],
    )
    assert Certificate.decode_untrusted(certificate.encode()) == certificate


@given(
    st.integers(0, 2**64 - 1),
    st.text("abcxyz019-", min_size=1, max_size=63).filter(lambda text: text.strip("-") == text),
)
def test_decoding_gives_back_what_was_encoded(serial: int, name: str) -> None:
    certificate = replace(make_identity(3).certificate, serial=serial, name=name)
    assert Certificate.decode_untrusted(certificate.encode()) == certificate


@given(st.binary(max_size=CERTIFICATE_MAX + 8))
def test_random_bytes_raise_wire_error_only(data: bytes) -> None:
    with pytest.raises(WireError):
        Certificate.decode_untrusted(data)


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, 2),
        (1, bytes(31)),
        (2, bytes(33)),
        (3, "Upper"),
        (3, "x" * 64),
        (3, ""),
        (3, b"node1"),
        (4, bytes(9)),
        (5, -1),
        (6, "soon"),
        (7, 1 << 50),
        (8, bytes(31)),
        (9, b""),
        (9, [b"\x0a\0\0\0\x08"] * 2),
        (9, [bytes([ten, 0, 0, 0, 8]) for ten in range(1, 10)]),
        (9, ["10.0.0.0/8"]),
        (9, [bytes(5)]),
        (10, bytes(65)),
    ],
)
def test_damaged_fields_are_refused(index: int, value: object) -> None:
    values = msgpack.unpackb(make_identity(1).certificate.encode())
    values[index] = value
    with pytest.raises(WireError):
        Certificate.decode_untrusted(msgpack.packb(values))


def test_other_encodings_of_the_same_values_are_refused() -> None:
    data = make_identity(1).certificate.encode()
    with pytest.raises(WireError, match="canonical"):
        Certificate.decode_untrusted(data.replace(b"\xa5node1", b"\xd9\x05node1"))
    with pytest.raises(WireError, match="canonical"):
        Certificate.decode_untrusted(msgpack.packb([*msgpack.unpackb(data), 0]))


def test_each_single_header_has_one_form_only() -> None:
    certificate = make_identity(1).certificate
    data = certificate.encode()
    others = list(reencoded(data))
    assert len(others) > 20
    for other in others:
        assert msgpack.unpackb(other) == msgpack.unpackb(data)
        with pytest.raises(WireError, match="canonical"):
            Certificate.decode_untrusted(other)


def test_a_signature_that_was_made_another_is_refused() -> None:
    certificate = make_identity(1).certificate
    for other in malleated(certificate.signature):
        decoded = Certificate.decode_untrusted(replace(certificate, signature=other).encode())
        with pytest.raises(AuthError):
            decoded.verify_signature(make_cluster())


def test_a_certificate_is_valid_from_its_first_second_to_before_its_last() -> None:
    certificate = make_identity(1).certificate
    Trust.founded(make_cluster()).check_certificate(certificate, WALL)
    Trust.founded(make_cluster()).check_certificate(certificate, WALL + YEAR - 0.5)


@pytest.mark.parametrize(
    ("change", "wall", "why"),
    [
        ({"name": "other"}, WALL, "not signed"),
        ({"static": bytes(32)}, WALL, "not signed"),
        ({"node": bytes(32)}, WALL, "not signed"),
        ({"serial": 9}, WALL, "not signed"),
        ({"not_after": WALL + 2 * YEAR}, WALL, "not signed"),
        ({"routes": (IPv4Network("192.168.0.0/16"),)}, WALL, "not signed"),
        ({"issuer": bytes(32)}, WALL, "not signed by its issuer"),
        ({"cluster": bytes(8)}, WALL, "another cluster"),
        ({}, WALL - 1, "not yet valid"),
        ({}, WALL + YEAR, "expired"),
    ],
)
def test_what_a_certificate_does_not_prove_is_refused(
    change: dict[str, object], wall: float, why: str
) -> None:
    certificate = replace(make_identity(1).certificate, **change)
    with pytest.raises(AuthError, match=why) as caught:
        Trust.founded(make_cluster()).check_certificate(certificate, wall)
    assert caught.value.reason is DropReason.BAD_CERTIFICATE


def test_a_certificate_of_another_authority_is_refused() -> None:
    cluster = replace(make_cluster(), authority=signing_key(9).public)
    with pytest.raises(AuthError, match="not trusted"):
        Trust.founded(cluster).check_certificate(make_identity(1).certificate, WALL)


def test_a_certificate_that_names_the_authority_is_signed_by_it() -> None:
    other = replace(make_identity(1).certificate, issuer=signing_key(9).public)
    forged = replace(other, issuer=AUTHORITY.public)
    forged = replace(forged, signature=signing_key(9).sign("certificate", forged.signed_bytes()))
    with pytest.raises(AuthError, match="not signed"):
        forged.verify_signature(make_cluster())


def certified(routes: list[str]) -> Certificate:
    identity = make_identity(1)
    return issue_certificate(
        AUTHORITY,
        node=identity.node,
        static=identity.static.public,
        name=identity.name,
        cluster=make_cluster().id,
        serial=2,
        not_before=WALL,
        not_after=WALL + YEAR,
        routes=[ip_network(text) for text in routes],
    )


def test_routes_are_certified_in_one_order() -> None:
    certificate = certified(["192.168.0.0/24", "2001:db8::/32", "10.0.0.0/9", "10.0.0.0/9"])
    assert [str(route) for route in certificate.routes] == [
        "10.0.0.0/9",
        "2001:db8::/32",
        "192.168.0.0/24",
    ]
    Trust.founded(make_cluster()).check_certificate(certificate, WALL)
    assert Certificate.decode_untrusted(certificate.encode()) == certificate


@pytest.mark.parametrize(
    "routes", [["0.0.0.0/0"], ["::/0"], [f"{ten}.0.0.0/8" for ten in range(1, 10)]]
)
def test_no_node_is_certified_for_a_default_route_or_for_too_many(routes: list[str]) -> None:
    with pytest.raises(ConfigError, match="route"):
        certified(routes)


@pytest.mark.parametrize("route", ["10.244.3.0/24", "10.0.0.0/8", "fd4d:75:736c:1::/64"])
def test_a_certificate_for_a_part_of_the_cluster_proves_nothing(route: str) -> None:
    with pytest.raises(AuthError, match=r"allows too much: .* overlaps"):
        Trust.founded(make_cluster()).check_certificate(certified([route]), WALL)


@pytest.mark.parametrize("name", ["a", "0", "vm-1", "a--b", "x" * 63])
def test_dns_labels_are_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a.b", "a_b", "x" * 64, "a\n", "é", "٣", "a b"]
)
def test_other_text_is_no_name(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a name"):
        check_name(name)


def test_an_identity_knows_its_name_and_node() -> None:
    identity = make_identity(4)
    assert (identity.name, identity.node) == ("node4", signing_key(4).public)


def test_an_identity_of_mixed_up_keys_cannot_be_made() -> None:
    certificate = make_identity(1).certificate
    with pytest.raises(ConfigError, match="other keys"):
        Identity(signing_key(2), static_key(1), certificate)
    with pytest.raises(ConfigError, match="other keys"):
        Identity(signing_key(1), static_key(2), certificate)


def test_a_new_certificate_is_kept_before_it_is_used() -> None:
    identity, cluster = make_identity(1), make_cluster()
    renewed = issue_certificate(
        AUTHORITY,
        node=identity.node,
        static=identity.static.public,
        name=identity.name,
        cluster=cluster.id,
        serial=99,
        not_before=WALL,
        not_after=WALL + 2,
    )
    before = identity.certificate
    assert identity.kept == b""
    identity.keep(renewed)
    assert (identity.certificate, identity.kept) == (before, renewed.encode())
    identity.use_kept()
    assert identity.certificate == renewed


def test_the_issuer_is_checked_whenever_the_certificate_is_valid() -> None:
    certificate = make_identity(1).certificate
    certificate.verify_signature(make_cluster())
    with pytest.raises(AuthError, match="not signed"):
        replace(certificate, serial=99).verify_signature(make_cluster())
