"""The message that removes a link, and what the kernel makes of it."""

from __future__ import annotations

import pytest

from node.cni import links
from node.kernel.model import veth_name
from tests.support.namespace import in_namespace, ip
from tests.support.privileged import NEEDS_KERNEL

pytestmark = NEEDS_KERNEL


def test_the_hosts_end_is_named_as_the_daemon_names_it() -> None:
    assert links.is_host_end(veth_name("web"))
    for other in ("mus", "muslin0", "mus0d501cc2bg", "mup0d501cc2b1", "eth0", "", 7, None):
        assert not links.is_host_end(other)


def test_the_message_is_the_kernels() -> None:
    assert links.request("eth0").hex(" ", 4) == (
        "2c000000 11000500 01000000 00000000 00000000 00000000 00000000 00000000 "
        "09000300 65746830 00000000"
    )


def test_both_ends_go_and_nothing_else() -> None:
    name = veth_name("web")

    def work() -> str:
        links.remove(name)
        links.remove(name)  # None there is fine.
        return ip("-br link")

    left = in_namespace(
        work, f"link add {name} type veth peer name eth0", "link add one type veth peer name two"
    )
    assert {line.split()[0].partition("@")[0] for line in left.splitlines()} == {"lo", "one", "two"}


def test_what_the_kernel_refuses_is_an_error() -> None:
    with pytest.raises(OSError, match="removing lo"):
        in_namespace(lambda: links.remove("lo"))
