"""What to say of a kernel that is not as it shall be: `Problem`s for `muslin status`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from node.kernel import netns, pods
from node.kernel.errors import KernelError
from node.kernel.overlap import HostRoute
from overlay.types import Prefix
from overlay.views import PodView, Problem

TUN_GONE: Final = "tun-gone"
"""Code of the problem that only who owns the interface can end."""


def problem_of(code: str, what: str, error: KernelError) -> Problem:
    """A problem whose reason the kernel gave."""
    return Problem(code=code, what=what, why=error.why, fix=error.fix)


def silent(error: KernelError) -> Problem:
    """The kernel does not answer."""
    return problem_of("kernel-silent", "the kernel's state is unknown", error)


def refused(errors: Sequence[KernelError]) -> Problem:
    """The kernel refused some changes, at least one."""
    parts = "part" if len(errors) == 1 else "parts"
    what = f"the kernel lacks {len(errors)} {parts} of the network"
    return problem_of("kernel-refused", what, errors[0])


def tun_gone(name: str) -> Problem:
    """There is no TUN interface of that name."""
    return Problem(
        TUN_GONE,
        f"interface {name} is gone",
        "somebody removed it, or moved it away",
        "see that no other interface has its name: it is made anew as soon as it can be",
    )


def detached(pod: PodView, error: KernelError) -> Problem:
    """A pod that cannot be connected. Without a namespace only its address is left of it."""
    handed = pod.attachment.handed
    lost = error.code == pods.LINK_LOST if handed else netns.is_gone(pod.netns)
    if not lost:
        return problem_of("pod-detached", f"pod {pod.name} is not connected", error)
    what = f"pod {pod.name} has lost its {'link' if handed else 'namespace'}"
    fix = f"muslin pod del {pod.name}, or muslin ipam check --fix"
    return Problem("pod-lost", what, error.why, fix)


def overlap(prefix: Prefix, route: HostRoute) -> Problem:
    """A network outside that the machine reaches by itself."""
    return Problem(
        "route-overlaps-host",
        f"packets to {prefix} do not take the pod network",
        f"this machine has the route {route} of its own",
        "remove that route, or leave it: packets go where it leads",
    )
