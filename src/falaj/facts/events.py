"""The river: one event for each state change, written in the same transaction.

`type` is `noun.verb` in the past tense; a name is never reused.
"""

from __future__ import annotations

from typing import Any, Self

from falaj.base import canonical, time
from falaj.base.time import Instant
from falaj.facts.wire import Fact

__all__ = ["Event"]


class Event(Fact, frozen=True, kw_only=True):
    """A CloudEvent 1.0 in our own names. `data` holds digests, ids, numbers as text; no person."""

    id: str  # ULID
    at: Instant
    project: str
    type: str
    actor: str  # pseudonym of a person, or `worker:<id>`
    subject: str  # id of the object, e.g. `change/CHG-0001`
    data: dict[str, Any]
    remark: str = ""  # a person's words: never in the leaf, which holds an HMAC; they can be erased

    def cloud(self) -> dict[str, Any]:
        """The CloudEvents 1.0 form: these bytes, canonical, are the leaf of the audit log."""
        return {
            "specversion": "1.0",
            "id": self.id,
            "source": f"/falaj/{self.project}",
            "type": f"falaj.{self.type}",
            "subject": self.subject,
            "time": self.at,
            "actor": self.actor,
            "datacontenttype": "application/json",
            "data": self.data,
        }

    @classmethod
    def from_cloud(cls, body: bytes) -> Self:
        """Read back what `cloud` wrote."""
        got = canonical.loads(body)
        return cls(
            id=got["id"],
            at=time.parse_instant(got["time"]),
            project=got["source"].removeprefix("/falaj/"),
            type=got["type"].removeprefix("falaj."),
            actor=got["actor"],
            subject=got["subject"],
            data=got["data"],
        )
