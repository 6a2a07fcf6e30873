"""What a running node may do to its machine, and what others of the machine may do to it.

    daemon      a few capabilities, listed in `node.privileges`      everything goes on working
    lanes       none at all
    others      no socket, no file, no memory; secrets are nowhere else

`base64`, hexadecimal and plain bytes: a secret is looked for in each form that text could have.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.identity import load_node
from node.lab.verbs import lab_kill, lab_start
from node.privileges import ALWAYS
from node.state import StateFolder
from overlay.wire.token import JoinToken
from tests.support.labs import Lab, LabMaker
from tests.support.machines import YardMaker
from tests.support.privileged import NEEDS_KERNEL
from tests.support.processes import attempt, background, run
from tests.support.traffic import reaches
from tests.support.waiting import eventually

pytestmark = NEEDS_KERNEL

SOON = 20.0
NOBODY = 65534
KEPT = sum(1 << capability for capability in ALWAYS)
NEEDS_SETPRIV = pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")


@pytest.fixture(scope="module")
def pair(make_module_lab: LabMaker) -> Lab:
    """Two nodes with two lanes each, that say everything they can say."""
    return make_module_lab(settings={"MUSLIN_LANES": "2", "MUSLIN_LOG_LEVEL": "debug"})


def lanes(lab: Lab, node: str) -> list[dict[str, Any]]:
    found = lab.ask(node, "status")["lanes"]
    assert all(lane["state"] == "up" for lane in found), found
    return list(found)


def capabilities(pid: int) -> set[tuple[str, int]]:
    """Of all threads of a process; the inheritable and the ambient set are to be empty."""
    found = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            text = (thread / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        rows = (row.partition(":") for row in text.splitlines())
        fields = {key: value.strip() for key, _, value in rows}
        assert fields["NoNewPrivs"] == "1", thread
        assert int(fields["CapInh"], 16) == int(fields["CapAmb"], 16) == 0, thread
        found |= {(key, int(fields[key], 16)) for key in ("CapEff", "CapPrm", "CapBnd")}
    return found


def test_a_daemon_has_few_capabilities_and_its_lanes_have_none(pair: Lab) -> None:
    daemon, lane = (row["pid"] for row in eventually(lambda: lanes(pair, "node1"), within=SOON))
    run(pair["node1-pod1"].netns, "true")
    pair.ask("node1", "ping", target="node2")  # starts what is started when it is needed
    assert capabilities(daemon) == {("CapEff", KEPT), ("CapPrm", KEPT), ("CapBnd", KEPT)}
    assert capabilities(lane) == {("CapEff", 0), ("CapPrm", 0), ("CapBnd", KEPT)}


def test_everything_goes_on_working(pair: Lab, spare: str) -> None:
    near, far = pair["node1-pod1"], pair["node2-pod1"]
    daemon, lane = (row["pid"] for row in eventually(lambda: lanes(pair, "node1"), within=SOON))
    os.kill(daemon, signal.SIGHUP)
    for words in ({}, {"netns": spare}):
        made = pair.ask("node1", "pod.add", name="late", **words)
        assert far_reaches(pair, made["address"])
        pair.ask("node1", "pod.del", name="late")
    run(pair["node1"].netns, "ip", "link", "del", "muslin0")
    eventually(lambda: reaches(near, far.address), within=SOON)
    os.kill(lane, signal.SIGKILL)
    eventually(lambda: lane not in [row["pid"] for row in lanes(pair, "node1")], within=SOON)
    assert ("CapEff", 0) in capabilities(lanes(pair, "node1")[1]["pid"])
    eventually(lambda: reaches(near, far.address), within=SOON)
    assert pair.ask("node1", "ping", target="node2")["legs"]


def far_reaches(lab: Lab, address: str) -> bool:
    return eventually(lambda: reaches(lab["node2-pod1"], address), within=SOON)


def test_a_namespace_of_a_process_that_may_do_more_can_be_a_pod(pair: Lab) -> None:
    with Holder() as holder:
        made = pair.ask("node1", "pod.add", name="strong", netns=f"/proc/{holder.pid}/ns/net")
        assert far_reaches(pair, made["address"])
        pair.ask("node1", "pod.del", name="strong")


class Holder:
    """A process with all capabilities in a network namespace of its own."""

    def __enter__(self) -> Holder:
        script = (
            "import ctypes; ctypes.CDLL(None).unshare(0x40000000); print(1, flush=True); input()"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self.pid = self._process.pid
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def test_a_restarted_daemon_finds_its_pods(pair: Lab) -> None:
    lab_kill(pair.name, "node1", signal.SIGTERM, store=pair.store)
    lab_start(pair.name, "node1", store=pair.store)
    eventually(lambda: lanes(pair, "node1"), within=SOON)
    eventually(lambda: reaches(pair["node2-pod1"], pair["node1-pod1"].address), within=SOON)


# -- others of the machine -------------------------------------------------------------------------


def as_nobody(lab: Lab, place: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """A command of a user who is nobody, in a namespace of the lab."""
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    return attempt(lab[place].netns, *become, *argv)


ASK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as asking:
    asking.settimeout(10)
    try:
        asking.connect(sys.argv[1])
        asking.sendall(b'{"id": 1, "method": "status", "params": {}}\\n')
        print(asking.recv(65536).decode())
    except PermissionError:
        print("not let in")
"""


@pytest.fixture
def ajar(pair: Lab) -> Iterator[Path]:
    """The control socket of a node whose folders and socket somebody has opened up to all."""
    path = pair.info.state("node1") / "control.sock"
    opened = [path, *path.parents[: len(path.parents) - 2]]
    before = {each: each.stat().st_mode & 0o7777 for each in opened}
    for each in opened:
        each.chmod(0o777)
    yield path
    for each, mode in before.items():
        each.chmod(mode)


@NEEDS_SETPRIV
@pytest.mark.parametrize("place", ["node1", "node1-pod1"])
def test_the_control_socket_does_not_let_others_in(pair: Lab, place: str) -> None:
    path = str(pair.info.state("node1") / "control.sock")
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert as_nobody(pair, place, "/usr/bin/python3", "-c", ASK, path).stdout == "not let in\n"


@NEEDS_SETPRIV
@pytest.mark.parametrize("place", ["node1", "node1-pod1"])
def test_who_is_let_in_by_mistake_is_refused_by_name(pair: Lab, ajar: Path, place: str) -> None:
    said = as_nobody(pair, place, "/usr/bin/python3", "-c", ASK, str(ajar)).stdout
    assert said.count("\n") == 2, "one line, and the end of print"
    assert '"no-permission"' in said
    assert "only root and the daemon's user may ask" in said
    assert "node1" not in said


@NEEDS_SETPRIV
def test_others_can_read_nothing_of_the_folder_or_the_process(pair: Lab) -> None:
    folder = pair.info.state("node1")
    daemon = pair.ask("node1", "status")["pid"]
    for path in (*folder.iterdir(), Path(f"/proc/{daemon}/environ"), Path(f"/proc/{daemon}/maps")):
        done = as_nobody(pair, "node1", "/bin/cat", str(path))
        assert (done.returncode, done.stdout) == (1, ""), path


def test_every_file_of_a_node_is_for_its_owner_alone(pair: Lab) -> None:
    for node in ("node1", "node2"):
        folder = pair.info.state(node)
        assert folder.stat().st_mode & 0o777 == 0o700
        modes = {entry.name: entry.stat().st_mode & 0o777 for entry in folder.iterdir()}
        assert {"identity.key", "cluster", "state", "lock", "control.sock"} <= set(modes)
        assert set(modes.values()) == {0o600}, modes


# -- where secrets are -----------------------------------------------------------------------------


def forms(secret: bytes) -> list[bytes]:
    """How a secret could be written down; the ends of base64 depend on what is around it."""
    found = [secret, secret.hex().encode(), secret.hex().upper().encode(), repr(secret).encode()]
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + secret)[4:-4]
        found += [encoded, encoded.translate(bytes.maketrans(b"+/", b"-_"))]
    return [*found, str(list(secret))[1:-1].encode()]


def secrets_of(folder: Path) -> dict[str, bytes]:
    """What nobody but the node may know."""
    node = load_node(StateFolder(folder))
    found = {
        "signing key": node.identity.signing.seed,
        "static key": node.identity.static.seed,
        "cluster secret": node.psk,
    }
    return found | {f"authority {one.public.hex()}": one.seed for one in node.authorities}


def found_in(text: bytes, secrets: dict[str, bytes]) -> list[str]:
    return [name for name, secret in secrets.items() if any(form in text for form in forms(secret))]


def processes() -> bytes:
    """The arguments and the environment of every process of the machine."""
    said = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            for name in ("cmdline", "environ"):
                try:
                    said.append((entry / name).read_bytes())
                except OSError:
                    continue  # it has ended
    return b"\n".join(said)


def test_the_search_finds_each_form() -> None:
    secret = os.urandom(32)
    for form in forms(secret):
        assert found_in(b"key=" + form + b" more", {"it": secret}) == ["it"]
    text = base64.urlsafe_b64encode(b"front" + secret + b"behind")
    assert found_in(text, {"it": secret}) == ["it"]
    assert found_in(os.urandom(4096), {"it": secret}) == []


def test_secrets_are_in_no_log_no_answer_no_error_and_no_argument(pair: Lab) -> None:
    everything = {}
    for node in ("node1", "node2"):
        of_node = secrets_of(pair.info.state(node))
        everything |= {f"{name} of {node}": secret for name, secret in of_node.items()}
        assert found_in((pair.info.state(node) / "identity.key").read_bytes(), of_node)
    assert [name.split()[-1] for name in everything if name.startswith("authority ")] == ["node1"]
    said = {"processes": processes(), "underlay": b""}
    said |= {f"log of {node}": text.encode() for node, text in pair.logs().items()}
    for verb in ("status", *(f"get {kind}" for kind in ("nodes", "routes", "sessions", "blocks"))):
        words = [sys.executable, "-m", "node", "--state", str(pair.info.state("node1"))]
        done = attempt(pair["node1"].netns, *words, *verb.split(), "-o", "json")
        said[verb] = (done.stdout + done.stderr).encode()
    assert len(said["log of node1"]) > 1000, "debug lines"
    assert {
        where: found for where, text in said.items() if (found := found_in(text, everything))
    } == {}


def test_a_token_is_in_nobodys_arguments_nor_in_errors_and_logs(make_yard: YardMaker) -> None:
    yard = make_yard(2)
    first, second = yard.found(), yard.machines[1]
    token = first.says("token").strip()
    # The rest of it is no secret: where the first node is, so are the first nodes of other tests.
    secret = {"secret": JoinToken.parse(token).secret}
    file = yard.info.folder / "token"
    file.touch(0o600)
    file.write_text(f"{token}\n")

    def reading(*words: str) -> list[str]:
        return ["sh", "-c", f"exec {' '.join(words)} < {file}"]

    join = reading(*second.words("join", "-", "--name", second.name))
    yard.cut((first, second))  # joining takes as long as this test wants
    with background(second.netns, *join) as joining:
        eventually(second.state.is_dir, within=SOON)
        said = processes()
        assert str(second.state).encode() in said, "it is running"
        joining.process.send_signal(signal.SIGINT)
        eventually(lambda: not second.state.exists(), within=SOON)
    assert found_in(said, secret) == []
    yard.cut()
    assert attempt(second.netns, *join, timeout=60).returncode == 0
    again = second.words("join", "-", "--name", "again")
    again[2] = str(yard.info.folder / "again")
    used = attempt(second.netns, *reading(*again), timeout=60)
    assert used.returncode == 1
    assert "token" in used.stderr
    for text in (used.stderr, *yard.logs().values()):
        assert found_in(text.encode(), secret) == []


def test_a_folder_that_others_may_enter_is_not_used(make_yard: YardMaker) -> None:
    yard = make_yard(1)
    first = yard.found()
    first.stop()
    first.state.chmod(0o755)
    done = first.types("up")
    assert done.returncode == 1
    assert done.stderr.startswith("muslin: cannot run the daemon: ")
    assert done.stderr.endswith(f"run chmod 700 {first.state}\n")
    first.state.chmod(0o700)
    first.up()
