"""Verbs against a pretended daemon: what it is asked, what the runtime is told."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from node.cni import links, notes, plugin, spec
from node.cni.plugin import answer
from tests.arch.project import ROOT
from tests.support.cni import (
    POD,
    VERSIONS,
    answering,
    config,
    environment,
    reading,
    refusing,
)


@pytest.fixture
def state(tmp_path) -> Path:
    return tmp_path / "node"


def run(verb: str, state: Path, version: str = "1.1.0", **more: object) -> tuple[int, dict]:
    """The exit code and the JSON of one verb; nothing on standard output is {}."""
    given = config(version, state=str(state), **more)
    code, text = answer(environment(verb), reading(given))
    return code, json.loads(text) if text else {}


def result_of(version: str) -> dict[str, object]:
    return spec.add_result(version, POD, "/run/netns/web", {}, {})


@pytest.mark.parametrize("version", VERSIONS)
def test_add_answers_with_the_pod(state, version) -> None:
    with answering(state, lambda *_: POD) as asked:
        assert run("ADD", state, version) == (0, result_of(version))
    method, params = asked[0]
    assert method == "pod.add"
    assert (params["container"], params["interface"]) == ("c0ffee01", "eth0")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("no-free-address", spec.TRY_LATER),
        ("just-started", spec.TRY_LATER),
        ("no-netns", spec.UNKNOWN_CONTAINER),
        ("netns-in-use", spec.BAD_ENVIRONMENT),
        ("other-network", spec.BAD_CONFIG),
        ("exists", spec.EXISTS),
        ("address-in-use", spec.NO_SUCH_ADDRESS),
        ("no-permission", spec.NO_PERMISSION),
        ("unknown-method", spec.OTHER_VERSION),
        ("whatever", spec.REFUSED),
    ],
)
def test_a_refusal_has_a_code_of_the_specification(state, code, told) -> None:
    with answering(state, refusing(code, "it is so", "do this")):
        ended, said = run("ADD", state, "1.0.0")
    assert ended == 1
    assert said == {"cniVersion": "1.0.0", "code": told, "msg": "it is so", "details": "do this"}


def test_a_previous_result_of_another_form_is_refused_before_anything_is_made(state) -> None:
    with answering(state, lambda *_: POD) as asked:
        ended, said = run("ADD", state, prevResult={"ips": "x"})
    assert (ended, said["code"]) == (1, spec.UNDECODABLE)
    assert asked == []


@pytest.mark.parametrize("version", VERSIONS)
def test_del_says_nothing(state, version) -> None:
    with answering(state, lambda *_: {"removed": False}) as asked:
        assert run("DEL", state, version, runtimeConfig={"mac": "x"}, ipam={"type": "x"}) == (0, {})
    method, params = asked[0]
    assert method == "pod.del"
    assert params == {"container": "c0ffee01", "interface": "eth0", "network": "pods"}


def test_del_without_a_daemon_leaves_a_note(state) -> None:
    state.mkdir()
    assert run("DEL", state) == (0, {})
    assert [note for _, note in notes.found(str(state))] == [
        {"container": "c0ffee01", "interface": "eth0", "network": "pods"}
    ]


def test_del_without_a_daemon_removes_the_link_that_add_made(state, monkeypatch) -> None:
    removed: list[str] = []
    monkeypatch.setattr(links, "remove", removed.append)
    state.mkdir()
    previous = result_of("1.1.0")
    previous["interfaces"] += [{"name": "eth7"}, {"name": "mus0000000000", "sandbox": "/x"}, 7]
    assert run("DEL", state, prevResult=previous) == (0, {})
    assert removed == [POD["link"]]
    for odd in ({"interfaces": 7}, {"interfaces": None}, {}, [], None):
        assert run("DEL", state, prevResult=odd) == (0, {})
    assert removed == [POD["link"]]


def test_a_link_that_cannot_be_removed_is_left_to_the_next_daemon(state, monkeypatch) -> None:
    def refused(name: str) -> None:
        raise PermissionError(1, name)

    monkeypatch.setattr(links, "remove", refused)
    state.mkdir()
    assert run("DEL", state, prevResult=result_of("1.1.0")) == (0, {})
    assert len(notes.found(str(state))) == 1


def test_del_without_a_node_has_nothing_to_do(state) -> None:
    assert run("DEL", state) == (0, {})
    assert not state.exists()


def test_del_whose_note_cannot_be_left_is_to_be_tried_again(state, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    state.mkdir()
    monkeypatch.setattr(notes, "leave", full)
    ended, said = run("DEL", state)
    assert (ended, said["code"]) == (1, spec.TRY_LATER)
    assert "No space left" in said["msg"]


def test_a_daemon_that_came_meanwhile_does_it_itself(state, monkeypatch) -> None:
    """It comes between the first knock and the note: the note is taken back."""
    state.mkdir()
    leave = notes.leave
    with answering(state, lambda *_: {"removed": True}) as asked:
        socket, hidden = state / "control.sock", state / "hidden"
        socket.rename(hidden)

        def come(*arguments: str) -> str:
            path = leave(*arguments)
            hidden.rename(socket)
            return path

        monkeypatch.setattr(notes, "leave", come)
        assert run("DEL", state) == (0, {})
    assert [method for method, _ in asked] == ["pod.del"]
    assert notes.found(str(state)) == []


def test_del_of_a_daemon_that_does_not_answer_is_to_be_tried_again(state) -> None:
    with answering(state, refusing("timeout")):
        ended, said = run("DEL", state)
    assert (ended, said["code"]) == (1, spec.TRY_LATER)
    assert notes.found(str(state)) == []


def test_check_compares_with_what_add_answered(state) -> None:
    with answering(state, lambda *_: POD) as asked:
        assert run("CHECK", state, prevResult=result_of("1.1.0")) == (0, {})
        other = {**result_of("1.1.0"), "ips": []}
        ended, said = run("CHECK", state, prevResult=other)
    assert (ended, said["code"]) == (1, spec.NOT_AS_ADDED)
    assert asked[0][1]["netns"] == "/run/netns/web"


def test_check_needs_a_previous_result(state) -> None:
    ended, said = run("CHECK", state)
    assert (ended, said["code"]) == (1, spec.BAD_CONFIG)
    assert "prevResult" in said["msg"]


def test_gc_tells_the_daemon_what_is_kept(state) -> None:
    listed = {"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]}
    with answering(state, lambda *_: {"removed": ["web"]}) as asked:
        assert run("GC", state, **listed) == (0, {})
    assert asked == [("pod.gc", {"network": "pods", "keep": [["a", "eth0"]]})]


def test_gc_without_a_list_asks_for_nothing(state) -> None:
    with answering(state, lambda *_: {"removed": []}) as asked:
        ended, said = run("GC", state)
    assert (ended, said["code"], asked) == (1, spec.BAD_CONFIG, [])


def test_gc_without_a_daemon_is_to_be_tried_again(state) -> None:
    ended, said = run("GC", state, **{"cni.dev/valid-attachments": []})
    assert (ended, said["code"]) == (1, spec.TRY_LATER)


def test_status_is_silent_when_a_pod_could_be_added(state) -> None:
    with answering(state, lambda *_: {"ready": True}) as asked:
        assert run("STATUS", state) == (0, {})
    assert asked == [("pod.ready", {})]


def test_status_says_why_none_can_be(state) -> None:
    reason = {"ready": False, "code": "no-free-address", "why": "all are taken", "fix": "delete"}
    with answering(state, lambda *_: reason):
        ended, said = run("STATUS", state)
    assert ended == 1
    assert (said["code"], said["msg"], said["details"]) == (50, "all are taken", "delete")


def test_status_without_a_daemon_is_limited_connectivity(state) -> None:
    ended, said = run("STATUS", state)
    assert (ended, said["code"]) == (1, 51)


def test_status_knows_what_add_would_refuse(state) -> None:
    with answering(state, lambda *_: {"ready": True}):
        ended, said = run("STATUS", state, ipam={"type": "host-local"})
    assert (ended, said["code"]) == (1, spec.BAD_CONFIG)


@pytest.mark.parametrize("given", [b"", b" \n", b'{"cniVersion": "0.4.0"}'])
def test_the_version_is_told_with_and_without_input(given) -> None:
    code, text = answer({"CNI_COMMAND": "VERSION"}, reading(given))
    said = json.loads(text)
    assert code == 0
    assert said["supportedVersions"] == list(VERSIONS)
    assert said["cniVersion"] == ("0.4.0" if b"0.4.0" in given else "1.1.0")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (b"", spec.UNDECODABLE),
        (b"{", spec.UNDECODABLE),
        (b"[]", spec.UNDECODABLE),
        (b"\xff", spec.UNDECODABLE),
        (b'{"cniVersion": "0.2.0"}', spec.INCOMPATIBLE),
        (b'{"cniVersion": "1.1.0"}', spec.BAD_CONFIG),
    ],
)
@pytest.mark.parametrize("verb", ["ADD", "DEL", "GC", "STATUS"])
def test_a_configuration_that_is_none_is_named(verb, given, code) -> None:
    ended, text = answer(environment(verb), reading(given))
    assert (ended, json.loads(text)["code"]) == (1, code)


def test_input_that_cannot_be_read_is_named() -> None:
    def broken() -> bytes:
        raise OSError(9, "Bad file descriptor")

    ended, text = answer(environment("ADD"), broken)
    assert (ended, json.loads(text)["code"]) == (1, spec.IO_FAILURE)


def process(environ: dict[str, str], given: str = "", *flags: str, code: str = "") -> list[str]:
    """The plugin as a process: exit code, standard output, standard error."""
    program = code or "import sys; from node.cni.plugin import main; sys.exit(main())"
    found = f"import sys; sys.path.append({str(ROOT)!r}); {program}"
    ended = subprocess.run(
        [sys.executable, "-IS", *flags, "-c", found],
        env=environ,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    return [str(ended.returncode), ended.stdout, ended.stderr]


def test_a_process_answers_on_standard_output_alone(state) -> None:
    with answering(state, lambda *_: POD):
        given = json.dumps(config(state=str(state)))
        code, out, err = process(environment("ADD"), given)
    assert (code, err) == ("0", "")
    assert json.loads(out) == result_of("1.1.0")


def test_a_person_is_told_what_this_is() -> None:
    code, out, err = process({})
    assert code == "1"
    assert json.loads(out)["code"] == spec.BAD_ENVIRONMENT
    assert "muslin cni install" in err


def test_a_defect_is_json_and_no_traceback() -> None:
    program = "from node.cni import plugin; plugin.answer = None; plugin.main()"
    code, out, err = process(environment("VERSION"), code=program)
    assert (code, err) == ("1", "")
    assert json.loads(out)["code"] == spec.DEFECT


@pytest.mark.parametrize("given", ["{", '{"a": 1', '{"a" 1}', '{"a": "', "[1 2]", '{"a": nul}'])
def test_a_process_says_of_half_a_configuration_that_it_is_none(given) -> None:
    """Its JSON core has no class for the error yet: nothing imported the package."""
    code, out, err = process(environment("ADD"), given)
    assert (code, err) == ("1", "")
    assert json.loads(out)["code"] == spec.UNDECODABLE


def test_an_answer_that_nobody_reads_is_a_failure() -> None:
    program = "import os; from node.cni.plugin import main; os.close(1); sys.exit(main())"
    assert process({"CNI_COMMAND": "VERSION"}, code=program) == ["1", "", ""]


def test_a_start_imports_next_to_nothing() -> None:
    """What it imports beyond the bare interpreter is this package and two modules in C."""
    listing = "print(*sorted(sys.modules), file=sys.stderr)"
    bare = set(process({}, code=listing)[2].split())
    program = f"from node.cni.plugin import main; main(); {listing}"
    mine = set(process({"CNI_COMMAND": "VERSION"}, code=program)[2].split()) - bare
    foreign = {name for name in mine if not name.startswith("node")}
    assert foreign == {"__future__", "_json", "_socket"}
    assert {name for name in mine if name.startswith("node.")} <= {
        "node.cni",
        *(f"node.cni.{name}" for name in ("client", "notes", "plugin", "request", "spec", "text")),
    }


def test_every_code_of_the_table_is_a_code_of_the_module() -> None:
    """The table on top of `spec` has each of its codes, and no other."""
    table = (spec.__doc__ or "").partition("----\n")[2].partition("\n\n")[0]
    listed = {int(line.split()[0]) for line in table.splitlines() if line[:9].strip().isdigit()}
    tree = ast.parse(Path(spec.__file__).read_text())
    codes = {
        item.value.value
        for item in tree.body
        if isinstance(item, ast.Assign)
        and isinstance(item.value, ast.Constant)
        and type(item.value.value) is int
    } - {spec.LONGEST_INTERFACE}
    assert listed == codes
    assert set(plugin._CODES.values()) <= codes


def test_environments_with_odd_bytes_are_no_defect(state) -> None:
    environ = {os.fsencode(key): os.fsencode(value) for key, value in environment("DEL").items()}
    environ[b"ODD"] = b"\xff"
    program = "from node.cni.plugin import main; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path.append({str(ROOT)!r}); {program}"],
        env=environ,
        input=json.dumps(config(state=str(state))).encode(),
        capture_output=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
