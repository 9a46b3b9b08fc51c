"""Linear models as one product: what a pipeline of imputer, scalers and coefficients comes to."""

from __future__ import annotations

import enum
import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Linear", "Link", "answers", "as_npz", "from_npz"]

LARGEST = 700.0  # exp beyond it overflows float64
MEMBERS = frozenset({"weights", "bias", "fill", "link"})


class Link(enum.IntEnum):
    """What is done with the sum: nothing, one probability, one for each class, a positive value."""

    IDENTITY = 0
    LOGISTIC = 1
    SOFTMAX = 2
    EXP = 3


class Linear(NamedTuple):
    """link(where(isnan(x), fill, x) @ weights + bias).

    weights: shape (k, m). bias: shape (m,). fill: shape (k,), NaN where a gap stays a gap.
    """

    weights: NDArray[np.float64]
    bias: NDArray[np.float64]
    fill: NDArray[np.float64]
    link: Link

    @property
    def fills(self) -> bool:
        """Whether any gap is filled."""
        return not bool(np.isnan(self.fill).all())


def answers(model: Linear, x: NDArray[Any], *, fills: bool = True) -> NDArray[np.float64]:
    """Shape (n, k) -> (n, m), added up in float64 whatever comes in.

    fills: False skips the look for gaps, for models that fill none.

    >>> made = Linear(np.ones((2, 1)), np.zeros(1), np.array([np.nan, 3.0]), Link.IDENTITY)
    >>> answers(made, np.array([[1.0, np.nan]]))
    array([[4.]])
    """
    wide = np.array(x, np.float64, order="C")
    if fills:
        gaps = np.isnan(wide)
        if gaps.any():
            np.copyto(wide, model.fill, where=gaps)
    # One vector: the same order of sums for one row and for many, where BLAS takes dot products.
    if model.weights.shape[1] == 1:
        z: NDArray[np.float64] = (wide @ model.weights[:, 0] + model.bias[0])[:, None]
    else:
        z = wide @ model.weights + model.bias
    if model.link is Link.LOGISTIC:
        np.clip(z, -LARGEST, LARGEST, out=z)
        np.negative(z, out=z)
        np.exp(z, out=z)
        z += 1.0
        return np.reciprocal(z, out=z)
    if model.link is Link.SOFTMAX:
        z -= z.max(axis=1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(axis=1, keepdims=True)
    elif model.link is Link.EXP:
        np.exp(np.clip(z, -LARGEST, LARGEST, out=z), out=z)
    return z


def as_npz(model: Linear) -> bytes:
    """The same model, the same bytes."""
    file = io.BytesIO()
    np.savez(
        file,
        weights=np.ascontiguousarray(model.weights, np.float64),
        bias=np.ascontiguousarray(model.bias, np.float64),
        fill=np.ascontiguousarray(model.fill, np.float64),
        link=np.int8(model.link),
    )
    return file.getvalue()


def from_npz(data: bytes) -> Linear:
    """Raises ValueError for what is no such model."""
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        if set(found.files) != MEMBERS:
            raise ValueError(f"got {sorted(found.files)}, expected {sorted(MEMBERS)}")
        weights, bias, fill = found["weights"], found["bias"], found["fill"]
        link = found["link"]
    if weights.ndim != 2 or bias.shape != weights.shape[1:] or fill.shape != weights.shape[:1]:
        raise ValueError(f"weights {weights.shape}, bias {bias.shape}, fill {fill.shape}")
    if any(part.dtype != np.float64 for part in (weights, bias, fill)) or link.shape != ():
        raise ValueError("expected float64, and one link")
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()) or np.isinf(fill).any():
        raise ValueError("weights or bias are not finite")
    return Linear(weights, bias, fill, Link(int(link)))
