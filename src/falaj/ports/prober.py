"""How fast a release answers when it is really served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Prober"]


class Prober(Protocol):
    """Starts a server for a release folder, times single answers, stops it."""

    def time_answers(
        self, folder: Path, trust: Path, model: str, rows: NDArray[np.float32], requests: int
    ) -> NDArray[np.int64]:
        """Microseconds from sending to the last byte of the answer, shape (requests,).

        rows: shape (n, d), asked in turn. Raises FalajError when the release cannot be served.
        """
