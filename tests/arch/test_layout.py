"""One concept per file, one test file per module, and functions that fit a screen."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess

import pytest

from tests.arch.project import ROOT, Module, functions, modules, source_modules

LONGEST_FILE = 400
LONGEST_FUNCTION = 50
MEDIAN_FUNCTION = 10
MOST_POSITIONAL = 5


def length(item: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, without the docstring: what a reader has to keep in mind."""
    first = item.body[0]
    if ast.get_docstring(item) is not None:
        if len(item.body) == 1:
            return 0
        first = item.body[1]
    assert item.end_lineno is not None
    return item.end_lineno - first.lineno + 1


def test_file_of(module: Module) -> str:
    """Where the tests of a module are: the same place below tests/."""
    return str("tests" / module.path.with_name(f"test_{module.path.name}"))


test_file_of.__test__ = False  # a helper whose name says what it returns


@pytest.mark.parametrize(
    "module",
    [m for m in source_modules() if m.path.name not in {"__init__.py", "__main__.py"}],
    ids=lambda module: module.name,
)
def test_every_module_has_its_test_file(module: Module) -> None:
    expected = ROOT / test_file_of(module)
    assert expected.is_file(), f"{module.name} needs {expected.relative_to(ROOT)}"
    assert "def test_" in expected.read_text(), f"{expected.relative_to(ROOT)} tests nothing"


@pytest.mark.parametrize("module", source_modules(), ids=lambda module: module.name)
def test_no_file_is_too_long(module: Module) -> None:
    assert len(module.text.splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("module", source_modules(), ids=lambda module: module.name)
def test_no_function_is_too_long(module: Module) -> None:
    for item in functions(module.tree):
        assert length(item) <= LONGEST_FUNCTION, f"{module.path}:{item.lineno} {item.name}"


@pytest.mark.parametrize("module", source_modules(), ids=lambda module: module.name)
def test_no_function_takes_many_positional_arguments(module: Module) -> None:
    for item in functions(module.tree):
        if any(
            "click" in ast.unparse(d) or ".command" in ast.unparse(d) for d in item.decorator_list
        ):
            continue  # click passes options by keyword, whatever the signature says
        names = [argument.arg for argument in (*item.args.posonlyargs, *item.args.args)]
        count = len([name for name in names if name not in {"self", "cls", "now"}])
        assert count <= MOST_POSITIONAL, f"{module.path}:{item.lineno} {item.name}"


def test_half_of_all_functions_fit_ten_lines() -> None:
    lengths = [length(item) for module in source_modules() for item in functions(module.tree)]
    assert statistics.median(lengths) <= MEDIAN_FUNCTION


@pytest.mark.parametrize(
    "module",
    [m for m in modules("tests") if m.name.startswith(("tests.overlay", "tests.sim"))],
    ids=lambda module: module.name,
)
def test_tests_of_the_core_never_wait_and_never_read_a_clock(module: Module) -> None:
    assert not re.search(r"\bsleep\(|\btime\.(time|monotonic|perf_counter)\(", module.text)


def test_what_is_generated_or_local_is_not_kept() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    unwanted = re.compile(
        r"(^|/)(__pycache__|\.venv|\.\w+_cache|.*\.egg-info|\.coverage|\.hypothesis)(/|$)"
    )
    assert [path for path in listed.stdout.splitlines() if unwanted.search(path)] == []
