"""A secret under a passphrase."""

from __future__ import annotations

import io
import os
import traceback

import msgpack
import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from node import sealed
from node.errors import NodeError
from node.sealed import (
    LONGEST_PASSPHRASE,
    MAGIC,
    Seal,
    WrongPassphraseError,
    check_passphrase,
    is_sealed,
    label_of,
    open_secret,
    read_passphrase,
)
from overlay.errors import ConfigError

SECRET = bytes(range(32))
WORDS = "correct horse käse"


@pytest.fixture(scope="module")
def data() -> bytes:
    return Seal.make(WORDS, os.urandom).close(SECRET, b"label", os.urandom)


def test_what_is_sealed_is_opened_with_the_passphrase_alone(data) -> None:
    assert is_sealed(data)
    assert not is_sealed(SECRET)
    secret, seal = open_secret(data, WORDS)
    assert secret == SECRET
    assert SECRET not in data
    assert open_secret(seal.close(b"", b"", os.urandom), WORDS)[0] == b""
    with pytest.raises(WrongPassphraseError) as caught:
        open_secret(data, WORDS + " ")
    assert (caught.value.code, caught.value.why) == ("wrong-passphrase", "the passphrase is wrong")


def test_the_bytes_are_those_of_the_picture(data) -> None:
    fields = msgpack.unpackb(data[len(MAGIC) :])
    version, cost, block, parallel, salt, label, nonce, ciphertext = fields
    assert (version, cost, block, parallel, label) == (1, 15, 8, 3, b"label")
    assert label_of(data) == b"label"
    key = Scrypt(salt=salt, length=32, n=2**15, r=8, p=3).derive(WORDS.encode())
    header = MAGIC + msgpack.packb([1, 15, 8, 3, salt, label, nonce])
    assert ChaCha20Poly1305(key).decrypt(nonce, ciphertext, header) == SECRET


def test_the_key_derivation_gives_what_is_published() -> None:
    """RFC 7914, section 12, the second vector."""
    derived = Scrypt(salt=b"NaCl", length=64, n=1024, r=8, p=16).derive(b"password").hex()
    assert derived.startswith("fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162")
    assert sealed._derive("password", b"NaCl", 10, 8, 16).hex() == derived[:64]


def test_no_two_sealings_are_alike() -> None:
    first, other = (Seal.make(WORDS, os.urandom) for _ in range(2))
    assert first.salt != other.salt
    one, two = (
        msgpack.unpackb(first.close(SECRET, b"label", os.urandom)[len(MAGIC) :]) for _ in range(2)
    )
    assert one[4] == two[4]
    assert one[6] != two[6]


def test_a_changed_secret_is_sealed_alike_without_the_passphrase(data) -> None:
    _, seal = open_secret(data, WORDS)
    again = seal.close(b"another", b"", os.urandom)
    assert open_secret(again, WORDS) == (b"another", seal)
    assert seal.key.hex() not in repr(seal)
    assert repr(seal.key) not in repr(seal)


@pytest.mark.parametrize("at", [4, 5, 6, 7])
def test_a_changed_byte_is_noticed(data, at) -> None:
    fields = msgpack.unpackb(data[len(MAGIC) :])
    fields[at] = bytes([fields[at][0] ^ 1]) + fields[at][1:]
    with pytest.raises(WrongPassphraseError):
        open_secret(MAGIC + msgpack.packb(fields), WORDS)


@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 2), (1, 21), (1, 0), (2, 17), (3, 17), (4, b"short"), (6, b""), (7, bytes(200_000))],
)
def test_what_asks_for_too_much_or_makes_no_sense_is_refused_before_it_costs(
    data, monkeypatch, at, value
) -> None:
    monkeypatch.setattr(sealed, "_derive", lambda *_: pytest.fail("it was tried"))
    fields = msgpack.unpackb(data[len(MAGIC) :])
    fields[at] = value
    with pytest.raises(ConfigError, match="sealed secret"):
        open_secret(MAGIC + msgpack.packb(fields), WORDS)


def test_no_error_shows_the_passphrase(data) -> None:
    words = "".join(["hunter", "2"])
    with pytest.raises(WrongPassphraseError) as caught:
        open_secret(data, words)
    assert caught.value.__cause__ is None
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


# -- reading it ------------------------------------------------------------------------------------


def test_it_is_the_first_line_of_a_private_file_or_of_standard_input(tmp_path, monkeypatch) -> None:
    file = tmp_path / "words"
    file.write_bytes(f"{WORDS}\r\nmore\n".encode())
    file.chmod(0o400)
    assert read_passphrase(str(file)) == WORDS
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"{WORDS}\n".encode())))
    assert read_passphrase("-") == WORDS


def test_a_file_that_others_may_read_is_refused(tmp_path) -> None:
    file = tmp_path / "words"
    file.write_text(WORDS)
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="others may read it: chmod 600"):
        read_passphrase(str(file))
    with pytest.raises(NodeError, match="no such file"):
        read_passphrase(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b"\nx", "is empty"),
        (b"\xff\n", "is not UTF-8"),
        (b"x" * (LONGEST_PASSPHRASE + 1), "has more than 1024 bytes"),
    ],
)
def test_what_cannot_be_a_passphrase_is_refused(tmp_path, content, says) -> None:
    file = tmp_path / "words"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match=says):
        read_passphrase(str(file))


def test_a_passphrase_is_taken_as_it_is() -> None:
    assert check_passphrase(" a b ") == " a b "
