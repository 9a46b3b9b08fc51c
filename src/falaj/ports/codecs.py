"""How values of steps become artifacts and come back. Pickle is never a way."""

from __future__ import annotations

from typing import Any, Protocol

from falaj.facts.runs import Artifact
from falaj.ports.blobs import Blobs

__all__ = ["BadValue", "Codec"]


class BadValue(ValueError):
    """The value is not of the promised type, or holds what this codec refuses. Says what to do."""


class Codec(Protocol):
    """One kind of artifact. Every adapter passes tests/contracts/test_codecs.py."""

    def takes(self, kind: Any) -> bool:
        """Whether values of this annotation are stored by this codec."""

    def write(self, value: Any, kind: Any, name: str, blobs: Blobs) -> Artifact:
        """Check `value` against `kind` and store it. Raises BadValue. Equal values, equal digest."""

    def read(self, artifact: Artifact, kind: Any, blobs: Blobs) -> Any:
        """A fresh value of `kind`; no two readers share it. Raises BlobMissing, BadValue."""
