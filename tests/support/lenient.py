"""Ed25519 as somebody would check it who forgets one thing: that S is below the order.

Slow, and not for secrets: it shows that what `overlay.keys.verify` refuses fulfils the equation.

References:
    RFC 8032, sections 5.1.3, 5.1.4 and 5.1.7: S is below L "or decoding fails".
"""

from __future__ import annotations

from hashlib import sha512
from typing import Final

P: Final = 2**255 - 19
D: Final = -121665 * pow(121666, -1, P) % P
BASE_Y: Final = 4 * pow(5, -1, P) % P

Point = tuple[int, int]
"""Affine x and y."""


def add(a: Point, b: Point) -> Point:
    """The sum of two points."""
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + product, -1, P) % P
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P) % P
    return x, y


def times(number: int, point: Point) -> Point:
    """A multiple of a point."""
    total: Point = (0, 1)
    while number:
        if number & 1:
            total = add(total, point)
        point = add(point, point)
        number >>= 1
    return total


def decode(data: bytes) -> Point:
    """A point from its 32 bytes."""
    number = int.from_bytes(data, "little")
    y, odd = number & ((1 << 255) - 1), number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return (x if x % 2 == odd else P - x), y


def verifies(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether S B = R + H(R, A, M) A, whatever S is."""
    digest = int.from_bytes(sha512(signature[:32] + public + message).digest(), "little")
    left = times(int.from_bytes(signature[32:], "little"), decode(BASE_Y.to_bytes(32, "little")))
    return left == add(decode(signature[:32]), times(digest, decode(public)))
