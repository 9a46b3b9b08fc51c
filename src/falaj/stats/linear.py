"""Linear models as one product: what a pipeline of imputer, scalers and coefficients comes to."""

from __future__ import annotations

import enum
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Linear", "Link", "answers", "as_npz", "from_npz", "single"]

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


def answers(model: Linear, x: NDArray[Any]) -> NDArray[np.float64]:
    """Shape (n, k) -> (n, m), added up in float64 whatever comes in.

    >>> made = Linear(np.ones((2, 1)), np.zeros(1), np.array([np.nan, 3.0]), Link.IDENTITY)
    >>> answers(made, np.array([[1.0, np.nan]]))
    array([[4.]])
    """
    if model.weights.shape[1] == 1:
        return single(model)(x)[:, None]
    z = filled(model, x.astype(np.float64)) @ model.weights + model.bias
    if model.link is Link.LOGISTIC:
        np.exp(np.minimum(-z, LARGEST), out=z)
        z += 1.0
        return np.reciprocal(z, out=z)
    if model.link is Link.SOFTMAX:
        z -= z.max(axis=1, keepdims=True)
        np.exp(z, out=z)
        z /= z.sum(axis=1, keepdims=True)
    elif model.link is Link.EXP:
        np.exp(np.minimum(z, LARGEST), out=z)
    return z


def filled(model: Linear, wide: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same array, its gaps filled."""
    gaps = np.isnan(wide)
    if gaps.any():
        np.copyto(wide, model.fill, where=gaps)
    return wide


def single(model: Linear) -> Callable[[NDArray[Any]], NDArray[np.float64]]:
    """The model with one answer a row as a function to shape (n,), for calls of one row as for many."""
    logistic = model.link is Link.LOGISTIC
    # 1 / (1 + exp(-z)): the sign stands in the weights already.
    weights = np.ascontiguousarray(-model.weights[:, 0] if logistic else model.weights[:, 0])
    bias = float(-model.bias[0] if logistic else model.bias[0])
    squeeze = model.link is Link.SOFTMAX

    def answer(x: NDArray[Any]) -> NDArray[np.float64]:
        wide = x.astype(np.float64)
        z: NDArray[np.float64] = wide @ weights
        # A gap in any row shows in the sum, which costs less than a look at each value.
        total = np.add.reduce(z)
        if total != total:  # noqa: PLR0124 NaN
            z = filled(model, wide) @ weights
        z += bias
        if squeeze:
            return np.ones_like(z)
        if logistic:
            np.exp(np.minimum(z, LARGEST, out=z), out=z)
            z += 1.0
            np.reciprocal(z, out=z)
        elif model.link is Link.EXP:
            np.exp(np.minimum(z, LARGEST, out=z), out=z)
        return z

    return answer


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
