from __future__ import annotations

from pathlib import Path

import pytest

from node.errors import NodeError
from node.selftest import memory
from node.selftest.check import Result
from node.selftest.memory import NAME, recall, remember
from node.state import StateFolder

WANTED = ("udp_gso", "checksum")


class Test:
    """A self-test that counts how often it is done."""

    __test__ = False

    def __init__(self, result: Result | None = None) -> None:
        self.result = result or Result(WANTED, {})
        self.done = 0

    def __call__(self, wanted: tuple[str, ...]) -> Result:
        self.done += 1
        return self.result


def remembered(folder: StateFolder, wanted: tuple[str, ...], test: Test) -> Result:
    """As a start does it."""
    result = recall(folder, wanted) or test(wanted)
    remember(folder, wanted, result)
    return result


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "node")
    folder.create()
    return folder


def test_what_works_is_tested_once_for_each_boot(folder, monkeypatch) -> None:
    test = Test()
    for _ in range(3):
        assert remembered(folder, WANTED, test) == Result(WANTED, {})
    assert test.done == 1
    monkeypatch.setattr(memory, "boot_id", lambda: "another")
    remembered(folder, WANTED, test)
    assert test.done == 2


@pytest.mark.parametrize("changed", ["boot_id", "software_version"])
def test_it_is_tested_again_when_anything_has_changed(folder, monkeypatch, changed: str) -> None:
    test = Test()
    remembered(folder, WANTED, test)
    remembered(folder, (*WANTED, "tso"), test)
    assert test.done == 2
    monkeypatch.setattr(memory, changed, lambda: "another")
    remembered(folder, (*WANTED, "tso"), test)
    assert test.done == 3


@pytest.mark.parametrize(
    "result", [Result(("checksum",), {"udp_gso": "changed"}), Result(WANTED, {}, "no namespaces")]
)
def test_what_failed_or_was_only_trusted_is_tested_each_time(folder, result: Result) -> None:
    test = Test(result)
    for _ in range(2):
        assert remembered(folder, WANTED, test) == result
    assert test.done == 2


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_file_that_says_nothing_is_as_none(folder, content: bytes) -> None:
    folder.write_raw(NAME, content)
    assert remembered(folder, WANTED, test := Test()) == Result(WANTED, {})
    assert test.done == 1


def test_a_kernel_that_does_not_say_which_boot_it_is_and_a_full_disk_cost_only_time(
    folder, monkeypatch
) -> None:
    def full(*_: object) -> None:
        raise NodeError("no space left on device")

    test = Test()
    monkeypatch.setattr(memory, "boot_id", lambda: "")
    for _ in range(2):
        remembered(folder, WANTED, test)
    monkeypatch.undo()
    monkeypatch.setattr(StateFolder, "write_raw", full)
    remembered(folder, WANTED, test)
    assert test.done == 3
