"""What members say to each other about a measurement (`muslin bench`), as effects for the daemon.

    asker                                                    target
      | == BenchRequest(request, address, underlay, s) ====> |  BenchAsked: serve, or refuse
      | <== BenchReady(request, token, ports) ============== |  or Refusal
    BenchAnswered                                            |
      | -- connections that begin with the token ----------> |  through the overlay, and beside it
      | == BenchDone(request) ============================== |  from either side: BenchEnded

The core keeps nothing of it: whether a measurement is served, and which one, is the daemon's to
decide, because what is kept busy (processors, ports, a child process) is the machine's.
"""

from __future__ import annotations

from typing import Final

from overlay.effects import BenchAnswered, BenchAsked, BenchEnded, Effect
from overlay.types import NodeId
from overlay.wire.messages import BenchDone, BenchReady, BenchRequest, Message, Refusal

CODE_PREFIX: Final = "bench-"
"""Codes of refusals to measure begin with it, those to give blocks or certificates do not."""


def bench_effects(node: NodeId, message: Message) -> list[Effect] | None:
    """What a member's message about a measurement means; None when it is about something else.

    Args:
        node: the member.
        message: what it said. A Refusal is about a measurement if its code says so.
    """
    match message:
        case BenchRequest(request, address, underlay, seconds):
            return [BenchAsked(node, request, address, underlay, seconds)]
        case BenchReady(request, token, port, underlay_port):
            return [BenchAnswered(node, request, token, port, underlay_port)]
        case Refusal(request, code, text):
            about_us = code.startswith(CODE_PREFIX)
            return [BenchAnswered(node, request, code=code, text=text)] if about_us else []
        case BenchDone(request):
            return [BenchEnded(node, request)]
    return None
