"""What members say to each other's daemons, as effects: the core does not look inside.

Measurements (`muslin bench`):

    asker                                                    target
      | == BenchRequest(request, address, underlay, s) ====> |  BenchAsked: serve, or refuse
      | <== BenchReady(request, token, ports) ============== |  or Refusal
    BenchAnswered                                            |
      | -- connections that begin with the token ----------> |  through the overlay, and beside it
      | == BenchDone(request) ============================== |  from either side: BenchEnded

Comparing machines (`muslin doctor`):

      | == FactsRequest(request) ==========================> |  FactsAsked: tell
    FactsTold <== Facts(request, text) ===================== |

The core keeps nothing of it. Whether a measurement is served, and which one, is the daemon's to
decide, because what is kept busy (processors, ports, a child process) is the machine's; what a
machine is like it alone knows.
"""

from __future__ import annotations

from typing import Final

from overlay.effects import BenchAnswered, BenchAsked, BenchEnded, Effect, FactsAsked, FactsTold
from overlay.types import NodeId
from overlay.wire.messages import (
    BenchDone,
    BenchReady,
    BenchRequest,
    Facts,
    FactsRequest,
    Message,
    Refusal,
)

CODE_PREFIX: Final = "bench-"
"""Codes of refusals to measure begin with it, those to give blocks or certificates do not."""


def talk_effects(node: NodeId, message: Message) -> list[Effect] | None:
    """What a member's message to the daemon means; None when it is about something else.

    Args:
        node: the member.
        message: what it said. A Refusal is about a measurement if its code says so.
    """
    match message:
        case Refusal(request, code, text):
            about_us = code.startswith(CODE_PREFIX)
            return [BenchAnswered(node, request, code=code, text=text)] if about_us else []
        case BenchRequest() | BenchReady() | BenchDone():
            return [_about_measuring(node, message)]
        case FactsRequest(request):
            return [FactsAsked(node, request)]
        case Facts(request, text):
            return [FactsTold(node, request, text)]
    return None


def _about_measuring(node: NodeId, message: BenchRequest | BenchReady | BenchDone) -> Effect:
    match message:
        case BenchRequest(request, address, underlay, seconds):
            return BenchAsked(node, request, address, underlay, seconds)
        case BenchReady(request, token, port, underlay_port):
            return BenchAnswered(node, request, token, port, underlay_port)
        case BenchDone(request):
            return BenchEnded(node, request)
