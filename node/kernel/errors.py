"""What goes wrong between the daemon and the kernel."""

from __future__ import annotations

from node.errors import NodeError


class KernelError(NodeError):
    """The kernel refused, or a namespace or link is not what it must be. One clause says why."""
