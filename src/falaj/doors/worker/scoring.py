"""Entry of a node that makes one part of a batch job; who asks knows it by its name alone."""

from __future__ import annotations

import msgspec

from falaj.base.errors import FalajError
from falaj.journeys.score import Order
from falaj.journeys.score import piece as made_of

__all__ = ["piece"]


def piece(text: str) -> str:
    """An order in, `part` or `problems` out; all JSON."""
    from falaj.app import row_formats

    try:
        order = msgspec.json.decode(text, type=Order)
        part = made_of(order, row_formats())
    except FalajError as error:
        told = [
            {"code": p.code, "message": p.message, "why": p.why, "fix": p.fix}
            for p in error.problems
        ]
        return msgspec.json.encode({"problems": told}).decode()
    return msgspec.json.encode({"part": part}).decode()
