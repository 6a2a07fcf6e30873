"""Puts the plugin and its configuration where container runtimes look, and takes them away again.

    BIN/muslin-cni            a few lines of Python behind the very interpreter of this installation
    CONF/10-muslin.conflist   the network: this plugin, and behind it portmap if BIN has one

The program is no copy: it loads `node.cni` from where it is installed, compiled once and for all.
The interpreter starts isolated and without `site` (python -IS), which is two thirds of its start.

Order: the program comes first and goes last, because runtimes watch the folder of configurations.
Each file is whole or not there at all, and what is not ours is left alone: a program without our
mark, a configuration that does not name our plugin.

A chain speaks what all its members speak, so the others are asked (the verb VERSION).

References:
    CNI specification 1.1.0, section 1 (configuration lists, cniVersions). execve(2), interpreter
    scripts: the first line ends at 255 bytes, and knows one argument.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.cni.request import DEFAULT_STATE
from node.cni.spec import VERSIONS
from node.errors import NodeError

BIN_DIR: Final = "/opt/cni/bin"
CONF_DIR: Final = "/etc/cni/net.d"
PROGRAM: Final = "muslin-cni"
CONFIG: Final = "10-muslin.conflist"
PORTMAP: Final = "portmap"
NETWORK: Final = "muslin"

LIST_VERSION: Final = "1.0.0"
"""The newest that runtimes without `cniVersions` may read: theirs are from before 1.1.0."""

ASK_TIMEOUT: Final = 20.0
LONGEST_FIRST_LINE: Final = 255
MARK: Final = "# Made by `muslin cni install`; `muslin cni uninstall` removes it."

_NO_JSON: Final = (ValueError, KeyError, TypeError, RecursionError)
"""What reading somebody else's JSON raises."""

_PROGRAM_MODE: Final = 0o755
_CONFIG_MODE: Final = 0o644
_LAUNCHER: Final = """\
#!{python} -IS
{mark}
import sys

sys.path.append({package!r})
try:
    from node.cni.plugin import main
except ImportError:
    print({missing!r})
    sys.exit(1)

from posix import _exit

_exit(main())
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """What was written.

    Attributes:
        program: the plugin.
        config: its configuration list.
        portmap: whether the chain has portmap; else the daemon opens ports.
        before: configurations that runtimes find in front of ours.
    """

    program: Path
    config: Path
    portmap: bool
    before: tuple[str, ...]


def install(
    bin_dir: Path,
    conf_dir: Path,
    *,
    state: str = DEFAULT_STATE,
    network: str = NETWORK,
    portmap: bool | None = None,
) -> Installed:
    """Write both files, or neither: all that fails on a full disk is done beside them first.

    Args:
        bin_dir: where the runtime looks for plugins.
        conf_dir: where it looks for configurations.
        state: the node's folder.
        network: the name of the network.
        portmap: chain it; None: if it is there.

    Raises:
        NodeError: a folder is missing or cannot be written, a file is there that is not ours, the
            plugin cannot run there, portmap is wanted and does not work. Nothing was changed then.
    """
    program, config = bin_dir / PROGRAM, conf_dir / CONFIG
    _check_places(program, config)
    versions: tuple[str, ...] = VERSIONS
    chained = False
    if portmap or (portmap is None and (bin_dir / PORTMAP).exists()):
        spoken = spoken_by(bin_dir / PORTMAP)
        versions, chained = tuple(version for version in VERSIONS if version in spoken), True
        if not versions:
            why = f"{bin_dir / PORTMAP} speaks none of {', '.join(VERSIONS)}"
            raise NodeError(why, "install a newer one, or say --no-portmap")
    text = conflist(versions, state=state, network=network, portmap=chained)
    with _written(program, launcher(Path(sys.executable)), _PROGRAM_MODE) as new:
        _try_out(new, program)
        with _written(config, text, _CONFIG_MODE) as new_config:
            _put(new, program)
            _put(new_config, config)
    return Installed(program, config, chained, _in_front(config))


def remove(bin_dir: Path, conf_dir: Path) -> tuple[Path, ...]:
    """Remove both files, as far as they are there; returns what was removed.

    Raises:
        NodeError: one is not ours, or cannot be removed. Nothing else.
    """
    wanted = [path for path in (conf_dir / CONFIG, bin_dir / PROGRAM) if os.path.lexists(path)]
    for path in wanted:
        _check_ours(path)
    for path in wanted:
        try:
            path.unlink()
        except OSError as error:
            raise NodeError.of(f"removing {path}", error) from error
    return tuple(wanted)


def launcher(python: Path) -> str:
    """The text of the program.

    Args:
        python: the interpreter; symbolic links are followed, a virtual environment is not needed.

    Raises:
        NodeError: its path cannot stand in a script's first line. Nothing else.
    """
    interpreter = str(python.resolve())
    package = str(Path(__file__).resolve().parents[2])
    first = f"#!{interpreter} -IS"
    if len(os.fsencode(first)) > LONGEST_FIRST_LINE or any(map(str.isspace, interpreter)):
        why = f"the path {interpreter} is too long, or has spaces, for the first line of a program"
        raise NodeError(why, "install Muslin with an interpreter elsewhere")
    missing = {
        "cniVersion": VERSIONS[-1],
        "code": 199,
        "msg": f"Muslin is no longer installed in {package}",
        "details": "run muslin cni install again",
    }
    return _LAUNCHER.format(
        python=interpreter, mark=MARK, package=package, missing=json.dumps(missing)
    )


def conflist(versions: tuple[str, ...], *, state: str, network: str, portmap: bool) -> str:
    """The text of the configuration list.

    Args:
        versions: what all of the chain speak, oldest first.
        state: the node's folder.
        network: the name of the network.
        portmap: whether it is chained.
    """
    capabilities = {"ips": True, "bandwidth": True}
    plugin: dict[str, object] = {"type": PROGRAM, "capabilities": capabilities}
    if state != DEFAULT_STATE:
        plugin["state"] = state
    plugins = [plugin]
    if portmap:
        plugins.append({"type": PORTMAP, "capabilities": {"portMappings": True}, "snat": True})
    else:
        capabilities["portMappings"] = True
    old_enough = [version for version in versions if version <= LIST_VERSION]
    listed: dict[str, object] = {
        "cniVersion": (old_enough or list(versions))[-1],
        "cniVersions": list(versions),
        "name": network,
        "plugins": plugins,
    }
    return json.dumps(listed, indent=2) + "\n"


def spoken_by(plugin: Path) -> tuple[str, ...]:
    """The versions that a plugin speaks, as it says itself.

    Raises:
        NodeError: it cannot be run, or does not answer as the specification wants it. Nothing else.
    """
    fix = "install it anew, or say --no-portmap"
    try:
        ended = subprocess.run(  # noqa: S603 - the administrator's own plugin folder
            [plugin],
            env={"CNI_COMMAND": "VERSION"},
            input=json.dumps({"cniVersion": LIST_VERSION}),
            capture_output=True,
            text=True,
            timeout=ASK_TIMEOUT,
            check=False,
        )
        return tuple(map(str, json.loads(ended.stdout)["supportedVersions"]))
    except OSError as error:
        raise NodeError(f"{plugin} cannot be run ({error.strerror})", fix) from error
    except subprocess.TimeoutExpired as error:
        raise NodeError(f"{plugin} does not say its versions in time", fix) from error
    except _NO_JSON as error:
        raise NodeError(f"{plugin} does not say its versions", fix) from error


def _check_places(program: Path, config: Path) -> None:
    for path, option in ((program, "--bin-dir"), (config, "--conf-dir")):
        if not path.parent.is_dir():
            why = f"there is no folder {path.parent}"
            fix = f"install the container runtime first, or name its folder with {option}"
            raise NodeError(why, fix, "no-folder")
        if os.path.lexists(path):
            _check_ours(path)


def _check_ours(path: Path) -> None:
    """A file that we may replace or remove: it carries our mark, or names our plugin."""
    try:
        ours = path.is_file() and not path.is_symlink() and _is_ours(path)
    except OSError as error:
        raise NodeError.of(f"reading {path}", error) from error
    if not ours:
        raise NodeError(f"{path} is not ours", "move it away, or name another folder", "not-ours")


def _is_ours(path: Path) -> bool:
    text = path.read_bytes()
    if path.name == PROGRAM:
        return MARK.encode() in text
    with suppress(*_NO_JSON):
        return any(plugin["type"] == PROGRAM for plugin in json.loads(text)["plugins"])
    return False


@contextmanager
def _written(path: Path, text: str, mode: int) -> Iterator[Path]:
    """A file beside `path`, to be put in its place inside a `with` block; gone at its end."""
    # Hidden, and without an ending that runtimes look for.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        try:
            temporary.unlink(missing_ok=True)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with open(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fchmod(handle, mode)  # whatever the umask says
                os.fsync(handle)
        except OSError as error:
            raise NodeError.of(f"writing {path}", error) from error
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _put(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        raise NodeError.of(f"writing {path}", error) from error


def _try_out(temporary: Path, path: Path) -> None:
    """Start the program once: the file system may forbid it. Compiles its modules, too."""
    try:
        spoken = spoken_by(temporary)
    except NodeError as error:
        why = str(error.why).replace(str(temporary), str(path))
        fix = "is its folder mounted noexec, or Muslin installed where others may not read?"
        raise NodeError(why, fix) from error
    if spoken != VERSIONS:
        raise NodeError(f"{path} is of another version than this command")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _in_front(config: Path) -> tuple[str, ...]:
    """Runtimes take the first by name; the others are there for nothing."""
    endings = {".conf", ".conflist", ".json"}
    names = (path.name for path in config.parent.iterdir() if path.suffix in endings)
    return tuple(sorted(name for name in names if name < config.name))
