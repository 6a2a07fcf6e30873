"""A base image out of this machine's own files: what Muslin needs to run, and nothing else.

Programs with the libraries that the dynamic linker finds for them, the standard library of the
Python that runs the tests, and the packages of the product from the virtual environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

PACKAGES = "/opt/packages"
"""Where the Python packages are: to be said to Python with PYTHONPATH."""

_PROGRAMS = ("ip", "nft", "ping", "busybox")
_APPLETS = (
    "[", "cat", "chmod", "date", "dirname", "env", "false", "hostname", "id", "ls", "mkdir",
    "mount", "mv", "rm", "sh", "sleep", "true", "umount",
)  # fmt: skip
_FOLDERS = ("dev", "proc", "run", "sys", "tmp", "var/lib", "usr/local/bin", "etc")
_MERGED = ("bin", "lib", "lib64", "sbin")
_LEFT_OUT = re.compile(
    r"(^|/)(test|tests|idlelib|tkinter|turtledemo|ensurepip|lib2to3|site-packages|dist-packages"
    r"|config-[^/]*)(/|$)"
)
_LIBRARY = re.compile(r"(?:=> )?(/\S+) \(0x")


def write(path: Path) -> Path:
    """Write the tree to a file that `docker import` reads."""
    with tarfile.open(path, "w") as archive:
        for folder in (*_FOLDERS, *(f"usr/{name}" for name in _MERGED)):
            archive.addfile(_entry(folder, tarfile.DIRTYPE))
        for name in _MERGED:
            archive.addfile(_entry(name, tarfile.SYMTYPE, f"usr/{name}"))
        for applet in _APPLETS:
            archive.addfile(_entry(f"usr/bin/{applet}", tarfile.SYMTYPE, "busybox"))
        programs = [_program(name) for name in _PROGRAMS]
        for program in programs:
            archive.add(program.resolve(), f"usr/bin/{program.name}")
        python, objects = _add_python(archive)
        objects += _add_packages(archive)
        for library in sorted(_libraries([*programs, python, *objects])):
            archive.add(Path(library).resolve(), _usr(library))
    return path


def _add_python(archive: tarfile.TarFile) -> tuple[Path, list[Path]]:
    python = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    archive.add(python.resolve(), _usr(str(python)))
    archive.addfile(_entry("usr/bin/python3", tarfile.SYMTYPE, str(python)))
    library = Path(sysconfig.get_path("stdlib"))
    archive.add(library, _usr(str(library)), filter=lambda entry: _wanted(entry, library))
    return python, list((library / "lib-dynload").glob("*.so"))


def _wanted(entry: tarfile.TarInfo, library: Path) -> tarfile.TarInfo | None:
    inside = entry.name.removeprefix(_usr(str(library)))
    return None if _LEFT_OUT.search(inside) else entry


def _add_packages(archive: tarfile.TarFile) -> list[Path]:
    objects = []
    for name in _closure("muslin"):
        for file in metadata.files(name) or ():
            path = Path(str(file.locate()))
            if ".." not in file.parts and path.is_file():
                archive.add(path, f"{PACKAGES.lstrip('/')}/{file}")
                if path.suffix == ".so":
                    objects.append(path)
    return objects


def _closure(name: str) -> list[str]:
    """The packages that one needs, without those for development; not itself."""
    found: list[str] = []
    queue = [name]
    while queue:
        for line in metadata.requires(queue.pop()) or ():
            needed = re.split(r"[^A-Za-z0-9._-]", line)[0]
            if ";" not in line and needed not in found:
                found.append(needed)
                queue.append(needed)
    return [*found, *(extra for extra in ("cffi", "pycparser") if _is_there(extra))]


def _is_there(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _libraries(objects: Iterable[Path]) -> set[str]:
    said = subprocess.run(
        ["ldd", *map(str, objects)], capture_output=True, text=True, check=False
    ).stdout
    own = os.path.join(sys.prefix, "")
    return {found for found in _LIBRARY.findall(said) if not found.startswith(own)}


def _program(name: str) -> Path:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert path is not None, name
    return Path(path)


def _usr(path: str) -> str:
    """The name of a file in the archive: /lib is /usr/lib."""
    name = path.lstrip("/")
    return f"usr/{name}" if name.split("/")[0] in _MERGED else name


def _entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.linkname = kind, 0o755, target
    return entry
