"""Tests of overlay.wire.token."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import replace
from hashlib import blake2s

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.errors import ConfigError
from overlay.types import Endpoint, NodeId
from overlay.wire.token import MAX_ENDPOINTS, JoinToken

TOKEN = JoinToken(
    id=bytes(range(16)),
    secret=b"s" * 32,
    static=b"x" * 32,
    member=NodeId(b"m" * 32),
    authority_fingerprint=b"f" * 16,
    endpoints=(Endpoint("192.0.2.1", 6875), Endpoint("2001:db8::1", 7000)),
    expires=1_800_003_600,
)


def line(fields: list[object], prefix: str = "muslin1-") -> str:
    """A token line with a right checksum around any fields."""
    packed = msgpack.packb(fields)
    data = packed + blake2s(packed, digest_size=4).digest()
    return prefix + urlsafe_b64encode(data).decode().rstrip("=")


def raw() -> list[object]:
    return [
        TOKEN.id,
        TOKEN.secret,
        TOKEN.static,
        TOKEN.member,
        TOKEN.authority_fingerprint,
        [["192.0.2.1", 6875], ["2001:db8::1", 7000]],
        TOKEN.expires,
    ]


def test_the_line_is_the_documented_one() -> None:
    assert str(TOKEN) == line(raw())
    assert str(TOKEN).startswith("muslin1-l8QQAAECAwQFBgcICQoLDA0OD8Qgc3Nz")
    assert "\n" not in str(TOKEN)


def test_parsing_gives_back_the_token() -> None:
    assert JoinToken.parse(f"  {TOKEN}\n") == TOKEN


@given(
    st.lists(
        st.builds(
            Endpoint.of,
            st.ip_addresses().map(str),
            st.integers(1, 65535),
        ),
        min_size=1,
        max_size=MAX_ENDPOINTS,
    )
)
def test_any_endpoints_survive(endpoints: list[Endpoint]) -> None:
    token = replace(TOKEN, endpoints=tuple(endpoints))
    assert JoinToken.parse(str(token)) == token


@pytest.mark.parametrize("endpoints", [1, 2, 3])
def test_any_single_wrong_character_is_noticed(endpoints: int) -> None:
    """Also the last one, of which base64 ignores some bits, depending on the length."""
    text = str(replace(TOKEN, endpoints=(Endpoint("192.0.2.1", 9),) * endpoints))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    wrong = [text[:-1] + letter for letter in alphabet if letter != text[-1]]
    for at in range(8, len(text)):
        wrong.append(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])
    for line_with_error in wrong:
        with pytest.raises(ConfigError, match="damaged"):
            JoinToken.parse(line_with_error)


def test_a_cut_line_is_damaged() -> None:
    for end in range(8, len(str(TOKEN))):
        with pytest.raises(ConfigError, match="damaged"):
            JoinToken.parse(str(TOKEN)[:end])


@pytest.mark.parametrize(
    "text", ["", "hello", "muslin-abc", "muslin1", "Muslin1-abc", "muslin1-" + "A" * 3000]
)
def test_other_text_is_not_a_token(text: str) -> None:
    with pytest.raises(ConfigError, match="not a join token"):
        JoinToken.parse(text)


@pytest.mark.parametrize(
    "text", ["muslin1-", "muslin1-AAAA", "muslin1-!!!!", "muslin1-é", "muslin1-A", "muslin1-AA A"]
)
def test_bytes_with_a_wrong_checksum_are_damaged(text: str) -> None:
    with pytest.raises(ConfigError, match="damaged"):
        JoinToken.parse(text)


def test_a_token_of_a_later_version_says_so() -> None:
    with pytest.raises(ConfigError, match="version 2"):
        JoinToken.parse(line(raw(), "muslin2-"))


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, b"short"),
        (1, bytes(31)),
        (2, "text"),
        (3, bytes(31)),
        (4, bytes(15)),
        (5, []),
        (5, [["192.0.2.1", 1]] * (MAX_ENDPOINTS + 1)),
        (5, [["host.example", 1]]),
        (5, [["192.0.2.1", 0]]),
        (5, [["192.0.2.1"]]),
        (5, ["192.0.2.1"]),
        (6, -1),
    ],
)
def test_fields_that_make_no_sense_are_refused(index: int, value: object) -> None:
    fields = raw()
    fields[index] = value
    with pytest.raises(ConfigError, match="makes no sense"):
        JoinToken.parse(line(fields))


def test_a_token_does_not_show_its_secret_when_printed_for_debugging() -> None:
    assert repr(TOKEN) == f"JoinToken({bytes(range(16)).hex()}, expires 1800003600)"
