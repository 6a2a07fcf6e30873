from __future__ import annotations

from node.errors import clauses
from node.kernel.errors import KernelError


def test_a_kernel_error_shows_its_code_reason_and_remedy() -> None:
    error = KernelError("there is no namespace web", "make one", "no-netns")
    assert clauses(error) == ("no-netns", "there is no namespace web", "make one")
