"""A machine with a container engine, of which a test can have several on one kernel.

A host is a machine of a yard (`tests.support.machines`) with mounts and processes of its own:

    network namespace   the node's, as in every lab
    mount namespace     /etc, /opt, /usr, /var: overlays of the machine's; /run, /dev/shm: empty;
                        so an engine finds its folders where it looks for them, and the machine
                        keeps its own
    PID namespace       ends with its first process, and all that was started in it with that one

The engine and the daemon both live in it, as on a real machine: what one names as a namespace
(/run/netns/..., /proc/PID/ns/net) the other finds. The first process ends when its standard input
does, which is a pipe of the test: nothing outlives the test, even one that was killed.

References:
    mount_namespaces(7), pid_namespaces(7), setns(2) on pidfds; the kernel's overlayfs.rst.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from node.kernel import netns
from node.lab import readiness
from node.lab.processes import command, environment
from tests.support.labs import OWN_ROOT, Place
from tests.support.machines import MUSLIN, Machine, Yard
from tests.support.processes import PATIENCE

P = ParamSpec("P")
T = TypeVar("T")

CLONE_FS = 0x0000_0200
CLONE_NEWNS = 0x0002_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

_SETUP = """
set -e
own=$1 shared=$2
mount -t proc proc /proc
mount -t tmpfs host "$own"
mkdir -p "$own/run/$shared" "$own/images"
mount --bind "/run/$shared" "$own/run/$shared"
for name in etc opt usr var; do
  mkdir "$own/$name" "$own/$name.work"
  mount -t overlay overlay -o "lowerdir=/$name,upperdir=$own/$name,workdir=$own/$name.work" "/$name"
done
for name in containers containerd docker; do
  mkdir -p "$own/images/$name" "/var/lib/$name"
  mount --bind "$own/images/$name" "/var/lib/$name"
done
mount -t tmpfs shm /dev/shm
mount --rbind "$own/run" /run
# Hierarchies that only the machine's own service manager uses; crun refuses to work beside them.
umount /sys/fs/cgroup/unified 2>/dev/null || true
echo ready
exec 3<&0
cat <&3 >/dev/null &
wait
umount --lazy "$own"
rmdir "$own"
"""
"""What the first process does: mounts, then nothing until its input ends. `wait` takes note of the
ends of processes whose parents are gone, which is a first process's duty. Its own last lines are
for a test that was killed: others remove the folder themselves."""

_libc = ctypes.CDLL(None, use_errno=True)

Done = subprocess.CompletedProcess[str]


class Host:
    """A machine with mounts and processes of its own, for the time of a `with` block.

    Args:
        machine: of a yard; its daemon must not be running.

    Attributes:
        containers: ids of those that will end with the host: their control groups are removed.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.containers: set[str] = set()
        self._stack = ExitStack()
        self._started: list[subprocess.Popen[bytes]] = []

    @property
    def name(self) -> str:
        """Of the machine, and of its node."""
        return self.machine.name

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            own = stack.enter_context(tempfile.TemporaryDirectory(prefix="muslin-host-"))
            self._first = netns.run_in(self.machine.netns, _start_first, own)
            stack.callback(self._end)
            assert self._first.stdout is not None
            said = self._first.stdout.readline()
            assert said == b"ready\n", (
                f"{self.name}: {said!r} (what failed is in the test's stderr)"
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _end(self) -> None:
        # The kernel ends the whole PID namespace with its first process. That one's end is complete
        # when all the others' are, which includes that their parents have taken note.
        self._first.kill()
        for process in (*self._started, self._first):
            process.wait()
        for group in _control_groups():
            for container in self.containers:
                with suppress(OSError):
                    (group / container).rmdir()
        for stream in (self._first.stdin, self._first.stdout):
            assert stream is not None
            stream.close()

    # -- commands ------------------------------------------------------------------------------

    def inside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function` returns in a thread on the host; processes that it starts are there."""

        def enter() -> T:
            pidfd = os.pidfd_open(self._first.pid)
            try:
                _call("unshare", _libc.unshare, CLONE_FS)
                _call("setns", _libc.setns, pidfd, CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID)
            finally:
                os.close(pidfd)
            return function(*args, **kwargs)

        with ThreadPoolExecutor(max_workers=1) as executor:
            return executor.submit(enter).result()

    def attempt(self, *argv: object, timeout: float = PATIENCE, given: str = "") -> Done:
        """Run a command, whatever its exit code; `given` is its input."""
        return self.inside(
            subprocess.run,
            [str(word) for word in argv],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env=environment({}),
        )

    def run(self, *argv: object, timeout: float = PATIENCE, given: str = "") -> str:
        """The output of a command, which has to succeed."""
        done = self.attempt(*argv, timeout=timeout, given=given)
        assert done.returncode == 0, f"{self.name}: {argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def place(self, netns_path: str, name: str, *addresses: str) -> Place:
        """A namespace that has a name on the host, as helpers that do not run on it know it."""
        # /var/run is a link to /run, which would be followed to the machine's.
        path = f"/proc/{self._first.pid}/root{self.run('realpath', netns_path).strip()}"
        return Place(name, self.name, path, *addresses)

    def write(self, path: str, text: str) -> None:
        """A file of the host, with its folder."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1"', "sh", path, given=text)

    def says(self, *words: object) -> str:
        """What a `muslin` verb prints on the host; it has to succeed."""
        return self.run(MUSLIN, "--state", self.machine.state, *words)

    @contextmanager
    def background(self, log: Path, *argv: object) -> Iterator[subprocess.Popen[bytes]]:
        """A command that goes on, for the time of a `with` block; what it says goes to `log`."""
        with self.start(log, *argv) as process:
            try:
                yield process
            finally:
                stop(process)

    def start(self, log: Path, *argv: object) -> subprocess.Popen[bytes]:
        """Start a command and go on at once; with the host it ends at the latest."""
        with log.open("ab") as stream:
            process = self.inside(
                subprocess.Popen,
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                env=environment({}),
            )
        self._started.append(process)
        return process

    # -- Muslin's daemon -----------------------------------------------------------------------

    def joins(self, member: Host) -> None:
        """Become a member, with a token of `member`, and start the daemon."""
        self.machine.joins(member.machine)
        self.up()

    def up(self) -> None:
        """Start the machine's daemon on the host, and wait until it has an address."""
        machine = self.machine
        self._daemon = self.start(machine.log, *command(machine.state, "up"))
        self._wait_for_daemon()

    def _wait_for_daemon(self) -> None:
        machine = self.machine
        readiness.wait_for_daemon(machine.info, machine.name, self._daemon.pid, threading.Event())

    def take_over(self) -> None:
        """Start another daemon beside the running one, and wait until it has taken its place."""
        before = self._daemon
        self.up()
        assert before.wait(PATIENCE) == 0, "the daemon that ran has ended as one that gave all"
        self._wait_for_daemon()  # the answer before may have been the other's

    def down(self, *, kill: bool = False) -> None:
        """End the machine's daemon, and wait for its end."""
        stop(self._daemon, kill=kill)


@contextmanager
def hosting(yard: Yard, *options: object) -> Iterator[list[Host]]:
    """The machines of a yard as hosts, and as a cluster that is up, for the time of a `with` block.

    Args:
        yard: on its machines nothing runs yet.
        options: of `muslin init`.
    """
    with ExitStack() as stack:
        hosts = [stack.enter_context(Host(machine)) for machine in yard.machines]
        first, *others = hosts
        first.machine.says("init", "--name", first.name, *options)
        first.up()
        for host in others:
            host.joins(first)
        yield hosts


def stop(process: subprocess.Popen[bytes], *, kill: bool = False) -> None:
    """End a process that a host runs: politely, and at once if that does not help or `kill`."""
    if not kill:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
    process.kill()
    process.wait()


def _start_first(own: str) -> subprocess.Popen[bytes]:
    _call("unshare", _libc.unshare, CLONE_NEWPID)  # for the children of this thread alone
    OWN_ROOT.mkdir(exist_ok=True)
    script: Sequence[str] = ("sh", "-c", _SETUP, "sh", own, OWN_ROOT.name)
    return subprocess.Popen(
        ["unshare", "--mount", "--propagation", "slave", *script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _control_groups() -> Iterator[Path]:
    """Our own control group in every hierarchy of version 1: runc makes its own inside of them."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        yield Path("/sys/fs/cgroup", controllers.removeprefix("name="), path.lstrip("/"))


def _call(doing: str, function: Callable[..., int], *args: object) -> None:
    if function(*args) != 0:
        raise OSError(ctypes.get_errno(), doing)
