from __future__ import annotations

import fcntl
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.errors import NodeError
from node.handover.capsule import FORMAT, LARGEST, Capsule
from overlay.wire.packing import pack

SECRET = os.urandom(48)


@pytest.fixture
def sealed() -> Iterator[int]:
    handle = Capsule(SECRET, 7).seal()
    yield handle
    os.close(handle)


def plain(data: bytes, *, seals: int = 0) -> int:
    handle = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(handle, data)
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, seals)
    return handle


def test_what_was_sealed_is_read_again_and_again(sealed: int) -> None:
    for _ in range(2):
        assert Capsule.unseal(sealed) == Capsule(SECRET, 7, FORMAT)


def test_nobody_can_change_it_nor_does_a_child_get_it(sealed: int) -> None:
    for change in (
        lambda: os.pwrite(sealed, b"x", 0),
        lambda: os.ftruncate(sealed, 0),
        lambda: mmap.mmap(sealed, 0),
        lambda: fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
    ):
        with pytest.raises(OSError, match="not permitted"):
            change()
    assert not os.get_inheritable(sealed)


def test_it_has_no_name_in_any_file_system_and_its_text_no_secret(sealed: int) -> None:
    assert Path(f"/proc/self/fd/{sealed}").readlink().name == "memfd:muslin-handover (deleted)"
    assert os.fstat(sealed).st_nlink == 0
    assert repr(SECRET) not in repr(Capsule(SECRET, 7))


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: plain(b"\xff\xff", seals=0xF), "cannot be read"),
        (lambda: plain(pack([b"x", 1]), seals=0xF), "cannot be read"),
        (lambda: plain(pack([b"x", 1, FORMAT])), "it is not sealed"),
        (lambda: plain(pack([b"x", 1, FORMAT]), seals=fcntl.F_SEAL_WRITE), "it is not sealed"),
        (lambda: plain(pack([b"x", 1, FORMAT + 1]), seals=0xF), "another version of Muslin"),
        (lambda: os.open(os.devnull, os.O_RDONLY), "no capsule"),
    ],
)
def test_what_is_no_capsule_is_refused_in_one_clause(made, why: str) -> None:
    handle = made()
    try:
        with pytest.raises(NodeError, match=why) as caught:
            Capsule.unseal(handle)
        assert not re.search(r"[.\n]", caught.value.why)
    finally:
        os.close(handle)


def test_one_that_is_too_large_is_not_even_read() -> None:
    handle = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.ftruncate(handle, LARGEST + 1)
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, 0xF)
    with pytest.raises(NodeError, match="no capsule"):
        Capsule.unseal(handle)
    os.close(handle)


def test_one_of_many_megabytes_is_whole() -> None:
    engine = os.urandom(1 << 20) * 24
    handle = Capsule(engine).seal()
    assert Capsule.unseal(handle).engine == engine
    os.close(handle)
