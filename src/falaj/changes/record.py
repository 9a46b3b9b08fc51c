"""What was refused stands in the audit log as well, with the rule that refused it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from falaj.base.errors import FalajError
from falaj.facts.access import Permit
from falaj.ports.ground import Ground

__all__ = ["on_record"]


@contextmanager
def on_record(ground: Ground, permit: Permit, subject: str, asked: str) -> Iterator[None]:
    """Do what stands inside; when a rule refuses it, leave the event `change.refused` and go on raising.

    subject: such as `change/CHG-0001`. asked: what was wanted, such as `start`.
    """
    try:
        yield
    except FalajError as refusal:
        with ground.store.begin() as unit:
            unit.append(
                ground.event(
                    "change.refused",
                    permit.person,
                    subject,
                    {
                        "asked": asked,
                        "code": refusal.code,
                        "codes": [problem.code for problem in refusal.problems],
                        "policy": permit.policy,
                    },
                )
            )
        raise
