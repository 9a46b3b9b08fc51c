"""`falaj model convert` as a person types it, outside of any project."""

from __future__ import annotations

import pickle

import hostile
import numpy as np

import parts
from falaj.base.errors import Exit
from falaj.base.sandbox import absent


def test_a_pickle_is_converted(here, tmp_path):
    from sklearn.linear_model import LogisticRegression

    if absent():
        parts.absent("bubblewrap", absent())
    x = np.random.default_rng(0).normal(size=(60, 2))
    model = LogisticRegression().fit(x, x[:, 0] > 0)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    done = here(tmp_path, "model", "convert", "model.pkl", "--out", "new")
    assert done.code == Exit.OK, done.err
    assert "LogisticRegression is onnx now: new/model.onnx" in done.out
    assert "rules: reading every name" in done.err
    assert (tmp_path / "new" / "provenance.json").is_file()


def test_a_hostile_pickle_is_refused_by_name(here, tmp_path):
    evil = hostile.pickles(tmp_path / "canary")["os.system, protocol 4"]
    (tmp_path / "model.pkl").write_bytes(evil)
    done = here(tmp_path, "model", "convert", "model.pkl", "--out", "new")
    assert done.code == Exit.USAGE
    assert "convert.refused" in done.err
    assert "posix.system" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "canary").exists()
    assert not (tmp_path / "new").exists()
