"""Network namespaces: make, find, enter and remove them.

A named namespace is a file below /run/netns on which the namespace is bind-mounted, the same
convention as `ip netns`, so that both see each other's. The kernel keeps the namespace as long as
the mount or a process in it exists.

A thread can be in another network namespace than its process: `setns` and `unshare` of
CLONE_NEWNET act on the calling thread alone. So work in another namespace is done by a thread made
for it, which ends there and never has to come back; a process that it starts stays there. Mount
namespaces are left as they are (`ip netns exec` makes a new one, for /sys): the process still sees
/run, but in /sys it sees the links of the machine.

References:
    setns(2), network_namespaces(7), mount_namespaces(7) on shared mounts, ioctl_ns(2).
    iproute2 ip/ipnetns.c, create_netns_dir: the same steps.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn, ParamSpec, TypeVar

from node.kernel.errors import KernelError

P = ParamSpec("P")
T = TypeVar("T")

NETNS_DIR: Final = Path("/run/netns")
"""Where named namespaces are."""

CLONE_NEWNET: Final = 0x4000_0000
NS_GET_NSTYPE: Final = 0xB703
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_SHARED: Final = 0x10_0000
MNT_DETACH: Final = 0x2

_OWN: Final = Path("/proc/thread-self/ns/net")
# os.setns and os.unshare exist from Python 3.12; mount has no wrapper at all.
_libc: Final = ctypes.CDLL(None, use_errno=True)


def path_of(netns: str | os.PathLike[str]) -> Path:
    """The file of a namespace given by name or by an absolute path.

    >>> path_of("lab-node1").as_posix(), path_of("/proc/7/ns/net").as_posix()
    ('/run/netns/lab-node1', '/proc/7/ns/net')
    """
    return NETNS_DIR / netns


def create(name: str) -> Path:
    """Make a named namespace, empty but for a loopback that is down; returns its path.

    Raises:
        KernelError: the name is no file name or exists already, or no permission. Nothing else.
    """
    if name in {"", ".", ".."} or "/" in name:
        raise KernelError(f"{name!r} cannot name a namespace")
    path = NETNS_DIR / name
    if exists(path):
        raise KernelError(f"namespace {name} exists already", code="eexist")
    try:
        _share_directory()
        path.touch()
    except OSError as error:
        raise KernelError.of(f"making namespace {name}", error) from error
    try:
        _in_new_thread(_make, path)
    except KernelError:
        path.unlink()
        raise
    return path


def _share_directory() -> None:
    """Make mounts below the folder appear in other mount namespaces, as `ip netns` does."""
    NETNS_DIR.mkdir(parents=True, exist_ok=True)
    folder = os.open(NETNS_DIR, os.O_RDONLY)
    try:
        # Two at once would stack two mounts, and the second would hide the first one's files.
        fcntl.flock(folder, fcntl.LOCK_EX)
        target = os.fsencode(NETNS_DIR)
        if _libc.mount(b"", target, b"none", MS_SHARED | MS_REC, None) != 0:
            _call("mount", _libc.mount, target, target, b"none", MS_BIND | MS_REC, None)
            _call("mount", _libc.mount, b"", target, b"none", MS_SHARED | MS_REC, None)
    finally:
        os.close(folder)


def _make(path: Path) -> None:
    _call(f"making namespace {path.name}", _libc.unshare, CLONE_NEWNET)
    source, target = os.fsencode(_OWN), os.fsencode(path)
    _call(f"naming namespace {path.name}", _libc.mount, source, target, b"none", MS_BIND, None)


def _call(doing: str, function: Callable[..., int], *args: object) -> None:
    if function(*args) != 0:
        raise KernelError.of(doing, OSError(ctypes.get_errno(), ""))


def delete(name: str) -> None:
    """Take a name from its namespace; processes in it live on. No such name is fine.

    Raises:
        KernelError: the kernel refused. Nothing else.
    """
    path = NETNS_DIR / name
    # A name can be mounted over several times; EINVAL says that no mount is left.
    while _libc.umount2(os.fsencode(path), MNT_DETACH) == 0:
        pass
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise KernelError.of(f"removing namespace {name}", error) from error


def names() -> list[str]:
    """The names of all named namespaces, sorted."""
    if not NETNS_DIR.is_dir():
        return []
    return sorted(entry.name for entry in NETNS_DIR.iterdir() if exists(entry))


def exists(netns: str | os.PathLike[str]) -> bool:
    """Whether there is a network namespace of that name, or at that path."""
    try:
        with opened(netns):
            return True
    except KernelError:
        return False


def is_gone(netns: str | os.PathLike[str]) -> bool:
    """Whether there certainly is no network namespace at that place; not if it cannot be told."""
    try:
        with opened(netns):
            return False
    except KernelError as error:
        return error.code == "no-netns"


def is_own(namespace: int) -> bool:
    """Whether a descriptor from `opened` is of the namespace that this thread is in."""
    return os.path.samestat(os.fstat(namespace), _OWN.stat())


@contextmanager
def opened(netns: str | os.PathLike[str]) -> Iterator[int]:
    """A descriptor of a namespace for the time of a `with` block.

    Raises:
        KernelError: there is none, or it is something else. Nothing else.
    """
    path = path_of(netns)
    try:
        namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise KernelError(
            f"there is no namespace {netns}", f"make one with: ip netns add {path.name}", "no-netns"
        ) from error
    except OSError as error:
        raise KernelError.of(f"opening namespace {netns}", error) from error
    try:
        if not _is_network_namespace(namespace):
            raise KernelError(
                f"{path} is not a network namespace",
                "name one below /run/netns, or a path such as /proc/PID/ns/net",
                "no-netns",
            )
        yield namespace
    finally:
        os.close(namespace)


def _is_network_namespace(descriptor: int) -> bool:
    try:
        return fcntl.ioctl(descriptor, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError as error:
        if error.errno == errno.ENOTTY:
            return False
        raise


def run_in(
    netns: str | os.PathLike[str],
    function: Callable[P, T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """The result of `function(*args, **kwargs)` called in a namespace, in a thread of its own.

    Raises:
        KernelError: there is no such namespace, or no permission. And what `function` raises.
    """

    def enter() -> T:
        _enter(netns)
        return function(*args, **kwargs)

    return _in_new_thread(enter)


def run_in_new(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of `function(*args, **kwargs)` called in a fresh namespace without a name.

    The namespace is gone when nothing that was opened in it is open any more.

    Raises:
        KernelError: no permission. And what `function` raises.
    """

    def enter() -> T:
        _call("making a namespace", _libc.unshare, CLONE_NEWNET)
        return function(*args, **kwargs)

    return _in_new_thread(enter)


def _in_new_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns") as executor:
        return executor.submit(function, *args, **kwargs).result()


def _enter(netns: str | os.PathLike[str]) -> None:
    with opened(netns) as namespace:
        _call(f"entering namespace {netns}", _libc.setns, namespace, CLONE_NEWNET)


def execute(netns: str | os.PathLike[str], argv: Sequence[str]) -> NoReturn:
    """Become the command `argv` inside a namespace. To be called in the main thread.

    Raises:
        KernelError: there is no such namespace, no permission, or no such command. After the
            last of these the thread stays in the namespace. Nothing else.
    """
    _enter(netns)
    try:
        os.execvp(argv[0], list(argv))  # noqa: S606 - running a command is what it is for
    except OSError as error:
        raise KernelError.of(f"running {argv[0]}", error) from error
