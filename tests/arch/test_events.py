"""One spelling for one thing: what the log may say, and under which names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from node.logs import FIELDS
from tests.arch.project import Module, source_modules

EVENT = re.compile(r"[a-z]+(-[a-z]+)*\.[a-z]+(-[a-z]+)*")


def events(module: Module) -> Iterator[tuple[ast.Call, str, set[str]]]:
    """Every `Report(...)` and every line that the daemon writes: name and literal fields."""
    for call in ast.walk(module.tree):
        if not isinstance(call, ast.Call) or not call.args:
            continue
        name = call.args[0]
        if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
            continue
        function = ast.unparse(call.func)
        if function == "Report":
            literal = call.args[1] if len(call.args) > 1 else None
            keys = literal.keys if isinstance(literal, ast.Dict) else []
            yield call, name.value, {k.value for k in keys if isinstance(k, ast.Constant)}
        elif function.endswith(("_log.info", "_log.warning", "_log.debug")):
            yield call, name.value, {word.arg for word in call.keywords if word.arg}


@pytest.mark.parametrize("module", source_modules(), ids=lambda module: module.name)
def test_events_and_their_fields_are_named_as_agreed(module: Module) -> None:
    for call, name, fields in events(module):
        where = f"{module.path}:{call.lineno}"
        assert EVENT.fullmatch(name), f"{where}: {name!r} is not dotted lower case"
        assert fields <= set(FIELDS), f"{where}: give {fields - set(FIELDS)} a line in node.logs"


def test_there_are_events_to_check() -> None:
    names = {name for module in source_modules() for _, name, _ in events(module)}
    assert len(names) > 5
