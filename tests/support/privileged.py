"""What a test needs to touch the kernel: root, TUN, namespaces: `pytestmark = NEEDS_KERNEL`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

NEEDS_KERNEL = [
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not Path("/dev/net/tun").exists(), reason="needs /dev/net/tun"),
]
