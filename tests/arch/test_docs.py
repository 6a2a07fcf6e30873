"""Everything that can be read on its own says what it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.arch.project import ROOT, Module, source_modules

LONGEST_FIRST_LINE = 100
LEAST_WORDS = 6
"""A module docstring of fewer words only repeats the file's name."""


def undocumented(tree: ast.AST, owner: str = "") -> Iterator[str]:
    for item in getattr(tree, "body", []):
        if not isinstance(item, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        public = not item.name.startswith("_")
        if public and not is_overload(item) and ast.get_docstring(item) is None:
            yield f"{owner}{item.name}"
        if isinstance(item, ast.ClassDef) and public:
            yield from undocumented(item, f"{item.name}.")


def is_overload(item: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("overload" in ast.unparse(decorator) for decorator in item.decorator_list)


@pytest.mark.parametrize("module", source_modules(), ids=lambda module: module.name)
def test_every_module_says_what_it_is(module: Module) -> None:
    docstring = ast.get_docstring(module.tree)
    assert docstring, f"{module.path} has no docstring"
    assert len(docstring.split()) >= LEAST_WORDS, f"{module.path}: {docstring!r} says too little"
    first = docstring.splitlines()[0]
    assert len(first) <= LONGEST_FIRST_LINE
    assert first.rstrip().endswith((".", "?", ":", ";", ",")) or first[-1].isalnum()


@pytest.mark.parametrize("module", source_modules(), ids=lambda module: module.name)
def test_every_public_name_has_a_docstring(module: Module) -> None:
    assert list(undocumented(module.tree)) == []


@pytest.mark.parametrize("module", source_modules(), ids=lambda module: module.name)
def test_no_source_has_leftovers(module: Module) -> None:
    for word in ("TODO", "FIXME", "XXX", "NotImplementedError", "breakpoint()"):
        assert word not in module.text, f"{module.path} has {word}"


@pytest.mark.parametrize(
    "folder", ["overlay", "node", "bench", "tests", "scripts", ".ci"], ids=lambda folder: folder
)
def test_no_file_names_a_path_of_the_machine_it_was_written_on(folder: str) -> None:
    tied = ("/" + "home/", "/" + "work/", "/" + "root/")
    for path in (ROOT / folder).rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and ".ruff_cache" not in path.parts:
            text = path.read_text("utf-8", errors="replace")
            for prefix in tied:
                assert prefix not in text, f"{path.relative_to(ROOT)} has {prefix}"


def test_what_proves_a_promise_is_there() -> None:
    named = re.findall(
        r"`((?:tests|scripts|overlay|deploy)/[^` ]*)", (ROOT / "SECURITY.md").read_text()
    )
    assert len(named) > 50, "the promises name what proves them"
    assert [path for path in named if not (ROOT / path).exists()] == []
