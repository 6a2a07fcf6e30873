"""Every target runs with its seeds, with what Hypothesis makes of them, and reaches what it is for.

Coverage-guided runs of any length are `scripts/fuzz`; a short one is in `test_fuzz.py`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from overlay.forwarding import inbound
from overlay.session.replay import ReplayWindow
from overlay.session.transport import Keypair
from overlay.wire import packing, virtio
from tests.arch.project import ROOT, modules
from tests.fuzz import members, packets, strangers
from tests.fuzz.registry import SELF_TEST, all_targets, find
from tests.fuzz.target import Target, framed, frames

TARGETS = all_targets()
FOUND = Path(__file__).parent / "found"
ELSEWHERE = {
    # Read by a process of ours what another process of ours wrote; checked where they are.
    "node.bench.far.Task.decode",
    # Needs a raw socket; what it does with the bytes is `_reply_untrusted`.
    "node.pinger.Pinger._on_message_untrusted",
}
"""Decoders that no target reaches, and why."""

SLOW = {target.name for target in members.TARGETS} | {"macked", "config"}


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed, cut, lengthened, with some bytes changed or a piece of another; or any bytes."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.integers(0, 4)):
            case 0:
                del data[at:]
            case 1:
                data[at : at + 1] = draw(st.sampled_from([b"\0", b"\xff", b"\x7f", b"\xc1"]))
            case 2:
                data[at : at + draw(st.integers(0, 9))] = draw(st.binary(max_size=9))
            case 3:
                other = draw(st.sampled_from(seeds))
                data[at:] = other[draw(st.integers(0, len(other))) :]
            case _:
                data += draw(st.binary(min_size=1, max_size=20))
    return bytes(data)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_seeds_are_taken(target: Target) -> None:
    seeds = target.seeds()
    assert seeds
    for data in (*seeds, b""):
        target.run(data)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_nothing_comes_of_what_is_made_of_seeds(target: Target) -> None:
    @seed(5)
    @settings(
        max_examples=15 if target.name in SLOW else 120,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(target.seeds()))
    def run(data: bytes) -> None:
        target.run(data[: target.longest])

    run()


@pytest.mark.parametrize("path", sorted(FOUND.glob("*")), ids=lambda path: path.name)
def test_nothing_comes_of_what_was_found_once(path: Path) -> None:
    """Inputs that broke something, named TARGET--WHAT."""
    TARGETS[path.name.partition("--")[0]].run(path.read_bytes())


# -- every decoder ---------------------------------------------------------------------------------


def decoders() -> set[str]:
    """Functions that say by their name that they see untrusted bytes, or decode stored ones."""
    found = set()
    for module in (*modules("overlay"), *modules("node")):
        if module.name.startswith("overlay.sim"):
            continue
        for name, item in _named(module.tree):
            if item.name.endswith("_untrusted") or item.name.lstrip("_").startswith("decode"):
                found.add(f"{module.name}.{name}")
    return found


def _named(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for item in getattr(tree, "body", []):
        if isinstance(item, ast.ClassDef):
            yield from _named(item, f"{prefix}{item.name}.")
        elif isinstance(item, ast.FunctionDef):
            yield prefix + item.name, item


@cache
def reached() -> frozenset[str]:
    """What the seeds of all targets call, by module and name."""
    codes: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            codes.add(frame.f_code)

    for kept in (strangers.world, strangers.caught, strangers._calling):
        kept.cache_clear()  # what makes them calls much, too
    for target in TARGETS.values():
        seeds = target.seeds()
        sys.setprofile(note)
        try:
            for data in seeds:
                target.run(data)
        finally:
            sys.setprofile(None)
    names = set()
    for code in codes:
        path = Path(code.co_filename)
        if path.is_relative_to(ROOT):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            names.add(f"{module}.{code.co_qualname}")
    return frozenset(names)


def test_every_decoder_is_reached_by_a_target() -> None:
    all_of_them = decoders()
    assert len(all_of_them) > 50
    assert all_of_them >= ELSEWHERE, "gone, or tested now"
    assert sorted(all_of_them - reached() - ELSEWHERE) == []
    assert not ELSEWHERE & reached()


def test_messages_of_an_input_are_framed_and_read_back() -> None:
    assert list(frames(framed(b"a", b"", b"ccc"), 9)) == [b"a", b"", b"ccc"]
    assert list(frames(framed(b"a", b"b"), 1)) == [b"a"]
    assert list(frames(b"\0\5ab", 9)) == [b"ab"]


def test_targets_are_found_by_name() -> None:
    assert all(find(name) is target for name, target in TARGETS.items())
    with pytest.raises(KeyError):
        find("nothing")
    assert find("self-test") is SELF_TEST
    with pytest.raises(IndexError):
        SELF_TEST.run(b"mu!\x80")


# -- every check is alive: without it, its target finds out ----------------------------------------


def _no_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_check_depth", lambda _: None)


def _no_length_of_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(plaintext: memoryview, position: int) -> tuple[int, memoryview]:
        length = int.from_bytes(plaintext[position : position + 2], "big")
        return plaintext[position + 2], plaintext[position + 3 : position + 3 + length]

    monkeypatch.setattr(inbound, "block_untrusted", careless)


def _no_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(_: Keypair, __: int, cipher: memoryview, ___: memoryview, out: memoryview) -> None:
        out[:] = cipher[: len(out)]

    monkeypatch.setattr(Keypair, "open_into", careless)


def _no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ReplayWindow, "check", lambda *_: True)


def _no_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound.Inbound, "_admit", lambda *_: True)


def _no_care_for_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtio, "_header_size", lambda _: 0)


def _no_types(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing.Fields, "_wrong", lambda *_: KeyError("not a wire error"))


def _deep() -> bytes:
    return b"\x91" * 12 + b"\x01"


def _swapped() -> bytes:
    """A packet from our pod to theirs, as if a peer had sent it."""
    packet = bytearray(members._inner()[0])
    packet[22:30] = packet[26:30] + packet[22:26]
    return bytes(packet)


def _spoilt() -> bytes:
    """A burst for the node with a counter that was not seen yet."""
    data = next(one for one in reversed(strangers.caught()) if one[0] == 4 and not one[2])
    index = next(iter(strangers.world()[strangers.NODE].engine.parts.sessions.keypairs))
    return b"\1" + data[:4] + index.to_bytes(4, "big") + (1 << 20).to_bytes(8, "big") + data[16:]


Disable = Callable[[pytest.MonkeyPatch], None]
ALIVE: list[tuple[str, Disable, Callable[[], list[bytes]], type[Exception]]] = [
    ("msgpack", _no_depth, lambda: [b"\x91" * 12 + b"\x01"], AssertionError),
    ("plaintext", _no_length_of_blocks, lambda: [b"\0\0", b"\1\0\3\0"], IndexError),
    ("datagram", _no_tag, lambda: [_spoilt()], AssertionError),
    ("datagram", _no_window, lambda: [b"\1" + each for each in strangers.caught()], AssertionError),
    ("member-packet", _no_sources, lambda: [_swapped()], AssertionError),
    ("virtio", _no_care_for_checksums, packets.super_packets, AssertionError),
    ("control", _no_types, lambda: [bytes.fromhex("9201a161")], KeyError),
]


@pytest.mark.parametrize(
    ("name", "disable", "inputs", "error"),
    ALIVE,
    ids=[each[1].__name__.strip("_") for each in ALIVE],
)
def test_without_a_check_its_target_fails(
    name: str,
    disable: Disable,
    inputs: Callable[[], list[bytes]],
    error: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hostile = inputs()
    run_all(name, hostile)  # with the check, nothing comes of them
    disable(monkeypatch)
    try:
        with pytest.raises(error):
            run_all(name, hostile)
    finally:
        strangers.world.cache_clear()  # it may be in any state now
        strangers.caught.cache_clear()


def run_all(name: str, inputs: list[bytes]) -> None:
    for data in inputs:
        TARGETS[name].run(data)
