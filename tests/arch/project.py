"""The project's own sources as data, for tests about its shape."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Module:
    """One Python file.

    Attributes:
        name: dotted (`overlay.wire.header`); a package's `__init__` has the package's name.
        path: relative to the root of the project.
    """

    name: str
    path: Path

    @property
    def text(self) -> str:
        return (ROOT / self.path).read_text("utf-8")

    @property
    def tree(self) -> ast.Module:
        return parse(self.path)

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text("utf-8"), str(path))


@cache
def modules(top: str) -> tuple[Module, ...]:
    """All modules below a top-level folder, sorted."""
    found = []
    for path in sorted((ROOT / top).rglob("*.py")):
        relative = path.relative_to(ROOT)
        parts = list(relative.with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found.append(Module(".".join(parts), relative))
    return tuple(found)


def source_modules() -> tuple[Module, ...]:
    """The modules of all packages: the product's two, and the benchmark."""
    return modules("overlay") + modules("node") + modules("bench")


def imports(module: Module) -> Iterator[tuple[str, ast.stmt, bool]]:
    """What a module imports: the full name, the statement, whether it is at the module's top."""
    top = set(map(id, module.tree.body))
    for statement in ast.walk(module.tree):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield alias.name, statement, id(statement) in top
        elif isinstance(statement, ast.ImportFrom):
            assert statement.level == 0, f"{module.name}: relative import"
            base = statement.module or ""
            for alias in statement.names:
                yield f"{base}.{alias.name}", statement, id(statement) in top


def functions(
    tree: ast.AST,
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, nested ones included."""
    for item in ast.walk(tree):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            yield item
