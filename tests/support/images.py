"""A container image without a registry: Debian's busybox, and nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

NAME = "localhost/muslin/box:1"
"""What engines call it."""

_BUSYBOX = "busybox"
_FOLDERS = ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "var")
_COMMANDS = ("sh", "cat", "echo", "ip", "nc", "ping", "sleep", "wget")
_FILES = {"etc/passwd": b"root:x:0:0::/:/bin/sh\n", "etc/group": b"root:x:0:\n"}


def write(path: Path) -> Path:
    """Write the image to a file that `docker load`, `podman load` and `ctr images import` read.

    References:
        The image-spec of Docker, v1.2: manifest.json, one configuration, one layer.
    """
    layer = _layer()
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sleep", "infinity"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [NAME], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as archive:
        _add(archive, name, config)
        _add(archive, "layer.tar", layer)
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    return path


def _layer() -> bytes:
    busybox = shutil.which(_BUSYBOX)
    assert busybox is not None
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as layer:
        for folder in _FOLDERS:
            layer.addfile(_entry(folder, tarfile.DIRTYPE))
        _add(layer, f"bin/{_BUSYBOX}", Path(busybox).read_bytes())
        for command in _COMMANDS:
            link = _entry(f"bin/{command}", tarfile.SYMTYPE)
            link.linkname = _BUSYBOX
            layer.addfile(link)
        for file, content in _FILES.items():
            _add(layer, file, content)
    return stream.getvalue()


def _entry(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, 0o755
    return entry


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = _entry(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
