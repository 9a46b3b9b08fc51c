"""Weights cost less than three times a SHA-256 of the same file, in the same run."""

from __future__ import annotations

import hashlib
import io
import time

import honest
import numpy as np
import pytest
from onnx import numpy_helper

from falaj.evaluation.security import Format, decide

SIDE = 2800  # 31 MB of float32


def weights():
    return np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)


def as_safetensors(w):
    entry = {"dtype": "F32", "shape": list(w.shape), "data_offsets": [0, w.nbytes]}
    return honest.safetensors({"w": entry}, w.tobytes())


def as_onnx(w):
    return honest.onnx_model(initializers=[numpy_helper.from_array(w, "w")])


def as_parquet(w):
    import polars as pl

    file = io.BytesIO()
    pl.DataFrame({f"c{i}": part for i, part in enumerate(w.reshape(28, -1))}).write_parquet(file)
    return file.getvalue()


MAKERS = {
    "safetensors": as_safetensors,
    "onnx": as_onnx,
    "npy": honest.npy,
    "npz": lambda w: honest.npz(w=w),
    "parquet": as_parquet,
}


@pytest.mark.parametrize("name", MAKERS)
def test_weights_are_judged_in_the_time_of_three_digests(tmp_path, name):
    path = tmp_path / "file"
    path.write_bytes(MAKERS[name](weights()))
    best = {"digest": 9.0, "gate": 9.0}
    for _ in range(7):
        begun = time.process_time()
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")
        best["digest"] = min(best["digest"], time.process_time() - begun)
        begun = time.process_time()
        assert isinstance(decide(path), Format)
        best["gate"] = min(best["gate"], time.process_time() - begun)
    assert best["gate"] <= 3 * best["digest"], best


def test_a_forest_of_many_nodes_takes_no_second(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(honest.forest(200_000))
    begun = time.process_time()
    assert isinstance(decide(path), Format)
    assert time.process_time() - begun < 1.0
