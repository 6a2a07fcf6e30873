"""Tests of overlay.wire.authority."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2s

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import WireError
from overlay.keys import SigningKey
from overlay.wire.authority import (
    LINKS_MAX,
    LIST_MAX,
    STATEMENTS_MAX,
    Act,
    Link,
    digest_of,
    links_untrusted,
    list_item,
    sign_link,
)
from overlay.wire.items import BODY_LIMIT
from overlay.wire.packing import MAX_TIME
from tests.support.clusters import AUTHORITY, WALL, make_cluster

CLUSTER = make_cluster()
SECOND = SigningKey(b"second".ljust(32))
FIRST_LINK = sign_link(AUTHORITY, CLUSTER, [], Act.INSTALL, SECOND.public, time=WALL)


def digests(count: int) -> list[bytes]:
    return [digest_of(number.to_bytes(4, "big")) for number in range(count)]


def test_a_link_has_the_documented_bytes() -> None:
    before = blake2s(CLUSTER.encode(), digest_size=16).digest()
    content = [1, CLUSTER.id, 1, 1, SECOND.public, AUTHORITY.public, before, WALL, b""]
    packed = msgpack.packb(content, use_bin_type=True)
    assert FIRST_LINK.encode() == AUTHORITY.sign("authority", packed) + packed
    assert Link.decode_untrusted(FIRST_LINK.encode()) == FIRST_LINK
    assert FIRST_LINK.is_signed()


def test_a_link_names_the_one_before_it() -> None:
    use = sign_link(SECOND, CLUSTER, [FIRST_LINK], Act.USE, SECOND.public, time=WALL + 9)
    assert use.previous == blake2s(FIRST_LINK.encode(), digest_size=16).digest()
    assert (use.number, use.signer) == (2, SECOND.public)
    assert links_untrusted(list_item([FIRST_LINK, use])) == (FIRST_LINK, use)


def test_statements_are_kept_in_order_and_once() -> None:
    said = digests(40)
    removal = sign_link(
        SECOND, CLUSTER, [FIRST_LINK], Act.REMOVE, AUTHORITY.public, time=WALL, stands=said * 2
    )
    assert Link.decode_untrusted(removal.encode()).statements() == set(said)
    assert removal.stands == b"".join(sorted(said))


def test_only_its_signer_has_signed_a_link() -> None:
    assert not replace(FIRST_LINK, signer=SECOND.public).is_signed()
    assert not replace(FIRST_LINK, time=WALL + 1).is_signed()
    other = SECOND.sign("authority", FIRST_LINK.signed_bytes())
    assert not replace(FIRST_LINK, signature=other).is_signed()


CONTENT = [1, CLUSTER.id, 1, 3, SECOND.public, AUTHORITY.public, bytes(16), WALL, bytes(16)]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, 2),
        (1, bytes(7)),
        (2, 0),
        (2, 65536),
        (3, 0),
        (3, 4),
        (3, 1),
        (4, bytes(31)),
        (5, bytes(33)),
        (6, bytes(15)),
        (7, -1),
        (7, MAX_TIME + 1),
        (8, bytes(15)),
        (8, bytes(32)),
        (8, bytes([1]) * 16 + bytes(16)),
        (8, b"".join(sorted(digests(STATEMENTS_MAX + 1)))),
        (8, None),
    ],
)
def test_a_damaged_link_is_refused(place: int, value: object) -> None:
    fine = bytes(64) + msgpack.packb(CONTENT, use_bin_type=True)
    assert Link.decode_untrusted(fine).act is Act.REMOVE
    changed = [*CONTENT[:place], value, *CONTENT[place + 1 :]]
    with pytest.raises(WireError):
        Link.decode_untrusted(bytes(64) + msgpack.packb(changed, use_bin_type=True))


def test_other_encodings_of_a_link_are_refused() -> None:
    packed = msgpack.packb([*CONTENT, 0], use_bin_type=True)
    with pytest.raises(WireError, match="canonical"):
        Link.decode_untrusted(bytes(64) + packed)
    item = list_item([FIRST_LINK])
    body = b"\xdc\x00\x01" + item.body[1:]
    with pytest.raises(WireError, match="canonical"):
        links_untrusted(item._replace(body=body))


@pytest.mark.parametrize(
    "change",
    [
        {"key": b"d"},
        {"version": 0},
        {"version": 2},
        {"version": LINKS_MAX + 1},
        {"body": b""},
        {"body": b"\x90"},
        {"body": b"\x91\xc4\x01x"},
        {"body": b"\x91\xc0"},
    ],
)
def test_what_is_no_list_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(WireError):
        links_untrusted(list_item([FIRST_LINK])._replace(**change))


@given(st.binary(max_size=200), st.integers(0, 200))
def test_random_bytes_raise_wire_error_only(body: bytes, version: int) -> None:
    with pytest.raises(WireError):
        links_untrusted(list_item([FIRST_LINK])._replace(body=body, version=version))


def test_the_longest_list_without_statements_and_the_most_statements_fit() -> None:
    links: list[Link] = []
    for _ in range(LINKS_MAX):
        links.append(
            sign_link(AUTHORITY, CLUSTER, links, Act.INSTALL, SECOND.public, time=MAX_TIME)
        )
    assert len(list_item(links).body) <= LIST_MAX <= BODY_LIMIT
    assert links_untrusted(list_item(links)) == tuple(links)
    stands = digests(STATEMENTS_MAX)
    most = sign_link(AUTHORITY, CLUSTER, [], Act.REMOVE, SECOND.public, time=0, stands=stands)
    assert links_untrusted(list_item([most])) == (most,)
