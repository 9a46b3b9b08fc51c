"""How fast a release answers when it is really served."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Prober", "Timing"]


class Timing(NamedTuple):
    """Microseconds of each answer, and what the server process took.

    ready_mb: its memory before the first question. peak_mb: the most that it held up to the last
    answer. None where the machine does not tell.
    """

    us: NDArray[np.int64]
    ready_mb: float | None = None
    peak_mb: float | None = None


class Prober(Protocol):
    """Starts a server for a release folder, times single answers, stops it."""

    def time_answers(
        self, folder: Path, trust: Path, model: str, rows: NDArray[np.float32], requests: int
    ) -> Timing:
        """Time from sending to the last byte of each answer, at most `requests` of them.

        rows: shape (n, d), asked in turn, for the one input of the model. Fewer answers than asked
        for mean that the time was over. Raises FalajError when the release cannot be served, stops
        answering or refuses a row. No process is left behind.
        """
