"""Who may import whom. The layers are a table; everything else is read from the sources.

node.cli -> node.control.{client,schema} -> standard library
node.cni -> standard library; its installer, node.errors
node.daemon -> node.* -> overlay
bench -> node, overlay; nobody imports it
overlay: vocabulary < wire < machines (strangers to each other) < catalog < forwarding
         < engine and its helpers < sim
"""

from __future__ import annotations

import ast
import sys

import pytest

from tests.arch.project import Module, imports, modules, source_modules

LAYERS = (
    {
        "attachment",
        "complaints",
        "debts",
        "errors",
        "faults",
        "drops",
        "types",
        "effects",
        "config",
        "views",
        "wall",
        "keys",
        "agenda",
        "noted",
    },
    {"wire"},
    {"session", "routing", "gossip", "ipam", "service", "policy", "dns"},
    {"catalog"},
    {"forwarding"},
    {
        "addresses",
        "admission",
        "allowance",
        "answers",
        "attachment_entry",
        "audit",
        "authorities",
        "certifying",
        "channel",
        "conflict",
        "crossing",
        "distrust",
        "ending",
        "expiry",
        "engine",
        "farewell",
        "handover",
        "holdings",
        "hostports",
        "invariants",
        "inviting",
        "joining",
        "knowledge",
        "landlord",
        "losses",
        "manners",
        "lanes",
        "offline",
        "outside",
        "own_record",
        "pace",
        "parts",
        "pathmtus",
        "peering",
        "pods",
        "problems",
        "refusals",
        "reminders",
        "removing",
        "renewal",
        "requests",
        "resting",
        "seeking",
        "snapshots",
        "signers",
        "state",
        "steward",
        "storing",
        "takeover",
        "talk",
        "tenants",
        "tending",
        "tokens",
        "trials",
        "validity",
        "versions",
        "writes",
    },
    {"sim"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
STRANGERS = LAYERS[2]

CORE_LIBRARIES = {"cryptography", "msgpack", "numpy"}
CORE_STANDARD = {
    "__future__",
    "abc",
    "array",
    "base64",
    "bisect",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "hmac",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "operator",
    "random",
    "re",
    "struct",
    "tomllib",
    "typing",
    "zlib",
}
"""Pure modules. A new one may be added here if it has no clock, no file, no socket and no state."""


def part(name: str) -> str:
    """`overlay.wire.header` is of part `wire`; `overlay` itself of none."""
    return name.split(".")[1] if "." in name else ""


def violations_of_layers() -> list[str]:
    found = []
    for module in modules("overlay"):
        own = part(module.name)
        if not own:
            continue  # the package's own page may show everything
        assert own in LEVEL, f"{module.name}: give overlay.{own} a layer in this test"
        for name, _, _ in imports(module):
            if not name.startswith("overlay."):
                continue
            other = part(name)
            upward = LEVEL[other] > LEVEL[own]
            strange = other != own and {own, other} <= STRANGERS
            if upward or strange:
                found.append(f"{module.name} imports {name}")
    return found


def test_the_core_imports_only_downwards_and_machines_are_strangers() -> None:
    assert violations_of_layers() == []


@pytest.mark.parametrize("module", modules("overlay"), ids=lambda module: module.name)
def test_the_core_imports_nothing_that_acts(module: Module) -> None:
    for name, _, _ in imports(module):
        top = name.partition(".")[0]
        assert top != "node", f"{module.name} imports {name}"
        assert top in {"overlay"} | CORE_STANDARD | CORE_LIBRARIES, f"{module.name} imports {name}"


@pytest.mark.parametrize("module", modules("overlay"), ids=lambda module: module.name)
def test_the_core_draws_no_random_numbers_of_its_own(module: Module) -> None:
    for name, _, _ in imports(module):
        if name.partition(".")[0] == "random":
            assert name in {"random", "random.Random"}, f"{module.name} imports {name}"
    for item in ast.walk(module.tree):
        if (
            isinstance(item, ast.Attribute)
            and isinstance(item.value, ast.Name)
            and item.value.id == "random"
        ):
            assert item.attr == "Random", f"{module.name}:{item.lineno} uses random.{item.attr}"


@pytest.mark.parametrize("module", modules("node"), ids=lambda module: module.name)
def test_the_product_does_not_know_its_benchmark(module: Module) -> None:
    for name, _, _ in imports(module):
        assert name.partition(".")[0] not in {"bench", "tests"}, f"{module.name} imports {name}"


@pytest.mark.parametrize("module", modules("bench"), ids=lambda module: module.name)
def test_the_benchmark_needs_only_the_standard_library_and_the_product(module: Module) -> None:
    for name, _, _ in imports(module):
        top = name.partition(".")[0]
        known = top in {"bench", "node", "overlay"} or top in sys.stdlib_module_names
        assert known, f"{module.name} imports {name}"


def test_only_the_up_verb_knows_the_daemon_and_only_when_it_runs() -> None:
    found = []
    for module in modules("node"):
        for name, statement, at_top in imports(module):
            if name == "node.daemon" or name.startswith("node.daemon."):
                lazily = module.name == "node.cli.up" and not at_top
                if not lazily:
                    found.append(f"{module.name}:{statement.lineno} imports {name}")
    assert found == []


@pytest.mark.parametrize("name", ["client", "schema", "address"])
def test_the_control_client_needs_only_the_standard_library(name: str) -> None:
    allowed = {"node.control.client", "node.control.schema", "node.control.address"}
    (module,) = (m for m in modules("node") if m.name == f"node.control.{name}")
    for imported, _, _ in imports(module):
        if imported.startswith(("node.", "overlay.")):
            assert imported.rpartition(".")[0] in allowed, imported


@pytest.mark.parametrize(
    "module",
    [module for module in modules("node") if module.name.startswith("node.cni")],
    ids=lambda module: module.name,
)
def test_the_plugin_needs_only_the_standard_library(module: Module) -> None:
    allowed = ("node.cni.", "node.errors.") if module.name == "node.cni.install" else ("node.cni.",)
    for name, _, _ in imports(module):
        if name.partition(".")[0] not in sys.stdlib_module_names:
            assert name.startswith(allowed), f"{module.name} imports {name}"


LAZY = ("node.cli", "node.control.client")
HEAVY = {"asyncio", "cryptography", "msgpack", "numpy", "pyroute2", "pytun", "rich", "uvloop"}


@pytest.mark.parametrize(
    "module",
    [module for module in modules("node") if module.name.startswith(LAZY)],
    ids=lambda module: module.name,
)
def test_the_command_line_imports_heavy_things_only_inside_verbs(module: Module) -> None:
    for name, _, at_top in imports(module):
        if at_top:
            assert name.partition(".")[0] not in HEAVY, f"{module.name} imports {name}"
            assert not name.startswith(("node.kernel", "node.lab", "node.io", "overlay.wire"))


def test_one_module_speaks_netlink_and_one_opens_the_tun() -> None:
    users: dict[str, set[str]] = {"pyroute2": set(), "pytun": set(), "uvloop": set()}
    for module in source_modules():
        for name, _, _ in imports(module):
            top = name.partition(".")[0]
            if top in users:
                users[top].add(module.name)
    assert users["uvloop"] == {"node.loop"}
    assert users["pytun"] == {"node.io.tun"}
    assert all(user.startswith("node.kernel.") for user in users["pyroute2"])


def test_the_broad_except_is_only_where_tasks_are_supervised() -> None:
    found = []
    for module in source_modules():
        for item in ast.walk(module.tree):
            if not isinstance(item, ast.ExceptHandler):
                continue
            caught = ast.unparse(item.type) if item.type is not None else ""
            if caught in {"", "Exception", "BaseException"} and module.name != "node.tasks":
                found.append(f"{module.name}:{item.lineno} catches {caught or 'everything'}")
    assert found == []
