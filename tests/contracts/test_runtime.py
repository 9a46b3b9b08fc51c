"""The contract of every runtime: the library's answers, the same for one row and for many, in any thread.

XGBoost, LightGBM and skops run in the environment of the part `formats`, where this file is run again.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import runtime_models as models

import parts
from falaj.base.errors import FalajError, Unverified
from falaj.base.sandbox import absent
from falaj.facts.formats import RUNTIMES
from falaj.facts.models import Schema
from falaj.serving import loading
from falaj.serving.runtimes.choice import APART, maker

HERE = ["linear", "linear, three classes", "onnx", "python"]
APARTS = ["xgboost", "xgboost, stopped early", "lightgbm", "skops"]
ENGINES = all(importlib.util.find_spec(name) for name in ("xgboost", "lightgbm", "skops"))
NAMES = [*HERE, *APARTS] if ENGINES else HERE


@pytest.fixture(scope="module", params=NAMES)
def one(request, tmp_path_factory):
    if request.param == "python" and absent():
        parts.absent("bubblewrap", absent())
    folder = tmp_path_factory.mktemp("runtime") / "model"
    runtime, schema, expected = models.loaded(folder, request.param)
    return SimpleNamespace(
        name=request.param, runtime=runtime, schema=schema, expected=expected, folder=folder,
        kind=models.made(request.param)[0],
    )  # fmt: skip


def asked(one, x):
    return models.one_column(one.runtime.run({"x": x.astype(np.float32)})[0])


def test_it_answers_what_the_library_answers(one):
    x, _ = models.rows()
    hard = np.full((4, models.WIDTH), [[np.nan], [0.0], [1e30], [-1e30]])
    x = np.vstack([x, hard])
    apart = np.abs(asked(one, x) - models.one_column(one.expected(x.astype(np.float32))))
    assert apart.max() <= 1e-5


def test_one_row_is_answered_as_in_any_batch(one):
    x = models.rows(200)[0]
    whole = asked(one, x)
    for size in (1, 7, 64):
        parts_of_it = [asked(one, x[at : at + size]) for at in range(0, len(x), size)]
        found = np.concatenate(parts_of_it)
        if one.kind == "onnx":  # a product of matrices there adds up in another order for one row
            assert np.abs(found - whole).max() <= 2e-7, size
        else:
            assert np.array_equal(found, whole, equal_nan=True), size


def test_threads_do_not_disturb_each_other(one):
    x = models.rows(400)[0]
    whole = asked(one, x)
    wrong: list = []

    def ask(part):
        for _ in range(10):
            found = asked(one, x[part * 100 : part * 100 + 100])
            if not np.array_equal(found, whole[part * 100 : part * 100 + 100], equal_nan=True):
                wrong.append(part)

    threads = [threading.Thread(target=ask, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_what_it_is_given_stays_as_it_was(one):
    x = models.rows(50)[0].astype(np.float32)
    before = x.copy()
    x.flags.writeable = False  # as requests give it: a view of what was received
    one.runtime.run({"x": x})
    assert np.array_equal(x, before, equal_nan=True)


def manifest(one):
    return SimpleNamespace(
        schema=one.schema, runtime=one.kind, model="m", version="1", threshold=None
    )


def test_its_cost_is_known_within_a_factor(one):
    """Of wall time, on a machine that does other things, too: the best of some looks."""
    x = models.rows(64)[0].astype(np.float32)
    factors = []
    for _ in range(5):
        found = loading.load(one.folder.parent, manifest(one), "sha256:0", 0)
        assert min(found.cost_us) >= 0
        best = float("inf")
        for _ in range(20):
            begun = time.perf_counter_ns()
            found.runtime.run({"x": x})
            best = min(best, (time.perf_counter_ns() - begun) / 1000)
        factors.append(max(found.cost(64) / best, best / max(found.cost(64), 1e-9)))
        if factors[-1] <= 2:
            break
    assert min(factors) <= 4, factors


def test_a_schema_of_another_width_is_refused(one):
    wrong = models.schema(width=models.WIDTH + 1)
    if one.kind == "onnx":
        engine = maker("onnx")(one.folder, models.renamed(wrong))
        with pytest.raises(Exception, match="INVALID_ARGUMENT"):
            engine.run({"x": np.zeros((1, models.WIDTH + 1), np.float32)})
    elif one.kind not in APART:  # what code takes, only its code knows
        with pytest.raises(Unverified) as refused:
            maker(one.kind)(one.folder, wrong)
        assert refused.value.code == "serving.model-schema"


def test_no_file_no_model(one, tmp_path):
    with pytest.raises(Unverified) as refused:
        maker(one.kind)(tmp_path, one.schema)
    assert refused.value.code == "serving.model-file"


def test_bytes_of_something_else_are_refused_in_words(one, tmp_path):
    for path in one.folder.iterdir():
        (tmp_path / path.name).write_bytes(b"(((\x00 this is nothing")
    with pytest.raises(Unverified) as refused:
        maker(one.kind)(tmp_path, one.schema)
    assert refused.value.code == "serving.model-broken"
    assert refused.value.problems[0].why


def test_every_runtime_of_the_table_has_a_class_or_a_sandbox():
    for name in RUNTIMES:
        assert callable(maker(name)) or name in APART


FILES = {"xgboost": "model.ubj", "lightgbm": "model.txt", "skops": "model.skops"}


if not ENGINES:

    @pytest.mark.parametrize("name", FILES)
    def test_an_engine_that_is_not_installed_is_named(tmp_path, name):
        (tmp_path / FILES[name]).write_bytes(b"x")
        with pytest.raises(FalajError) as refused:
            maker(name)(tmp_path, models.schema())
        assert refused.value.code == "serving.engine-missing"
        assert f"falaj[{name}]" in refused.value.problems[0].fix

    def test_the_engines_of_the_part():
        parts.suite("formats", "tests/contracts/test_runtime.py", "-k", "xgb or lightgbm or skops")


def test_schema_of_two_inputs_is_no_matrix(tmp_path):
    _, files, schema, _ = models.made("linear")
    (tmp_path / "linear.npz").write_bytes(files["linear.npz"])
    with pytest.raises(Unverified) as refused:
        maker("linear")(tmp_path, Schema(inputs=schema.inputs * 2, outputs=schema.outputs))
    assert refused.value.code == "serving.model-schema"
