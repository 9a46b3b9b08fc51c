"""Pickles of others: rules, second opinion, sandbox, the same answers; only the new file goes on."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import honest
import hostile
import joblib
import numpy as np
import pytest

import parts
from falaj.base import digests
from falaj.base.errors import FalajError
from falaj.base.sandbox import Limits, absent
from falaj.evaluation.security import Format, decide
from falaj.journeys.convert import Asked, convert
from falaj.links.bubblewrap.sandbox import Bubblewrap


@pytest.fixture(scope="session")
def models():
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    draw = np.random.default_rng(0)
    x = draw.normal(size=(200, 3))
    y = (x[:, 0] > 0).astype(int)
    return {
        "logistic": LogisticRegression().fit(x, y),
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y),
        "forest": RandomForestClassifier(5, max_depth=3, random_state=0).fit(x, y),
        "ridge": Ridge().fit(x, y),
    }


@pytest.fixture
def sandbox():
    why = absent()
    if why:
        parts.absent("bubblewrap", why)
    return Bubblewrap(limits=Limits(seconds=120))


@pytest.mark.parametrize("name", ["logistic", "pipeline", "forest", "ridge"])
def test_a_pickle_becomes_onnx_with_the_same_answers(models, sandbox, tmp_path, name):
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps(models[name]))
    heard = []
    found = convert(Asked(file=file, out=tmp_path / "out"), sandbox, tell=heard.append)
    assert found.format == "onnx"
    assert found.rows == 1000
    assert found.apart < 1e-4
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["model.onnx", "provenance.json"]
    assert isinstance(decide(tmp_path / "out" / "model.onnx"), Format)
    assert any("converting in the sandbox" in words for words in heard)


def test_provenance_names_the_old_one(models, sandbox, tmp_path):
    import polars as pl

    file = tmp_path / "model.joblib"
    joblib.dump(models["forest"], file, compress=3)
    rows = pl.DataFrame(np.random.default_rng(1).normal(size=(50, 3)), schema=["a", "b", "c"])
    rows.write_csv(tmp_path / "rows.csv")
    asked = Asked(file=file, out=tmp_path / "out", sample=tmp_path / "rows.csv")
    found = convert(asked, sandbox)
    told = json.loads((tmp_path / "out" / "provenance.json").read_text())
    new = digests.of_file(tmp_path / "out" / "model.onnx")
    assert told["subject"] == [
        {"name": "model.onnx", "digest": {"sha256": new.removeprefix("sha256:")}}
    ]
    built = told["predicate"]["buildDefinition"]
    old = digests.of_file(file).removeprefix("sha256:")
    assert built["resolvedDependencies"][0] == {"name": "pickle", "digest": {"sha256": old}}
    assert built["internalParameters"]["kind"] == "sklearn.ensemble._forest.RandomForestClassifier"
    assert "bubblewrap" in built["internalParameters"]["sandbox"]
    assert (found.rows, found.drawn) == (50, False)


def test_without_picklescan_its_absence_is_said(models, sandbox, tmp_path):
    import importlib.util

    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps(models["logistic"]))
    found = convert(Asked(file=file, out=tmp_path / "out"), sandbox)
    there = importlib.util.find_spec("picklescan") is not None
    assert found.opinion.startswith("picklescan" if there else "absent: picklescan")


def code_of(asked, sandbox):
    with pytest.raises(FalajError) as refused:
        convert(asked, sandbox)
    assert not asked.out.exists(), "nothing is left behind"
    return refused.value


class Never:
    """A sandbox that nothing may reach."""

    def about(self):
        return "never"

    def job(self, name, folder, tell):
        raise AssertionError("it came as far as the sandbox")


@pytest.mark.parametrize("name", hostile.pickles(Path("canary")))
def test_a_hostile_pickle_never_reaches_the_sandbox(tmp_path, name):
    canary = tmp_path / "canary"
    (tmp_path / "p").write_bytes(hostile.pickles(canary)[name])
    assert (
        code_of(Asked(file=tmp_path / "p", out=tmp_path / "out"), Never()).code == "convert.refused"
    )
    assert not canary.exists()


def test_hostile_files_in_compression_never_reach_it(tmp_path):
    for name, data in hostile.files(tmp_path / "canary").items():
        (tmp_path / "p").write_bytes(data)
        error = code_of(Asked(file=tmp_path / "p", out=tmp_path / "out"), Never())
        assert error.code == "convert.refused", name
    assert not (tmp_path / "canary").exists()


def test_a_bomb_of_compression_is_not_blown_up(tmp_path):
    import bz2
    import lzma
    import zlib

    for pack in (zlib.compress, bz2.compress, lzma.compress):
        (tmp_path / "p").write_bytes(pack(b"\0" * (80 << 20)))
        error = code_of(Asked(file=tmp_path / "p", out=tmp_path / "out"), Never())
        assert "grows too large" in str(error)


def test_what_needs_no_conversion_is_told(tmp_path):
    (tmp_path / "p").write_bytes(honest.onnx_model())
    error = code_of(Asked(file=tmp_path / "p", out=tmp_path / "out"), Never())
    assert error.code == "convert.not-needed"
    error = code_of(Asked(file=tmp_path / "gone", out=tmp_path / "out"), Never())
    assert error.code == "convert.no-file"


def test_a_folder_that_is_there_is_left_alone(models, tmp_path):
    (tmp_path / "p").write_bytes(pickle.dumps(models["ridge"]))
    (tmp_path / "out").mkdir()
    with pytest.raises(FalajError) as refused:
        convert(Asked(file=tmp_path / "p", out=tmp_path / "out"), Never())
    assert refused.value.code == "convert.exists"
    assert list((tmp_path / "out").iterdir()) == []


def test_other_answers_are_another_model(models, sandbox, tmp_path):
    (tmp_path / "p").write_bytes(pickle.dumps(models["forest"]))
    error = code_of(Asked(file=tmp_path / "p", out=tmp_path / "out", tolerance=0.0), sandbox)
    assert error.code == "convert.differs"


def test_a_sample_that_does_not_fit(models, sandbox, tmp_path):
    (tmp_path / "p").write_bytes(pickle.dumps(models["ridge"]))
    np.save(tmp_path / "wide.npy", np.zeros((4, 9)))
    asked = Asked(file=tmp_path / "p", out=tmp_path / "out", sample=tmp_path / "wide.npy")
    error = code_of(asked, sandbox)
    assert error.code == "convert.failed"
    assert "takes 3 columns" in str(error)
    (tmp_path / "text.csv").write_text("a,b,c\nx,y,z\n")
    asked = Asked(file=tmp_path / "p", out=tmp_path / "out", sample=tmp_path / "text.csv")
    assert code_of(asked, sandbox).code == "convert.bad-sample"


def test_what_takes_too_much_is_ended(models, tmp_path, sandbox):
    (tmp_path / "p").write_bytes(pickle.dumps(models["ridge"]))
    asked = Asked(file=tmp_path / "p", out=tmp_path / "out")
    assert code_of(asked, Bubblewrap(limits=Limits(seconds=0.5))).code == "convert.failed"


class Lying:
    """A sandbox in which the pickle took over: it answers what it likes."""

    def __init__(self, **files):
        self.files = files

    def about(self):
        return "lying"

    def job(self, name, folder, tell):
        good = {"to": "onnx", "file": "model.onnx"}
        if name == "scan":
            (folder / "answer.json").write_text('{"tool": ""}')
            return ""
        (folder / "answer.json").write_text(json.dumps(good))
        np.save(folder / "rows.npy", np.zeros((2, 3), "f4"))
        np.save(folder / "scores.npy", np.zeros((2, 1)))
        np.save(folder / "answers.npy", np.zeros((2, 1)))
        (folder / "model.onnx").write_bytes(honest.onnx_model())
        for path, data in self.files.items():
            place = folder / path.replace("_", ".")
            place.unlink(missing_ok=True)
            if isinstance(data, Path):
                place.symlink_to(data)
            elif data is not None:
                place.write_bytes(data)
        return ""


LIES = {
    "no model": ({"model_onnx": None}, "convert.failed"),
    "a link out of the folder": ({"model_onnx": Path("/etc/passwd")}, "convert.failed"),
    "a pickle under the new name": ({"model_onnx": pickle.dumps(1)}, "convert.quarantined"),
    "another format": ({"model_onnx": honest.ubj()}, "convert.quarantined"),
    "another file": ({"answer_json": b'{"to": "onnx", "file": "../x"}'}, "convert.failed"),
    "another kind": ({"answer_json": b'{"to": "json", "file": "model.onnx"}'}, "convert.quarantined"),
    "an endless answer": ({"answer_json": b"[" * (2 << 20)}, "convert.failed"),
    "no answer": ({"answer_json": b"{"}, "convert.failed"),
    "an answer that is a list": ({"answer_json": b"[]"}, "convert.failed"),
    "objects as scores": (
        {"scores_npy": honest.npy(np.array([[{}]], object), allow_pickle=True)},
        "convert.failed",
    ),
    "scores of another shape": ({"scores_npy": honest.npy(np.zeros((3, 1)))}, "convert.differs"),
    "scores that are a link": ({"scores_npy": Path("/etc/passwd")}, "convert.failed"),
    "a pipe as rows": ({"rows_npy": None}, "convert.failed"),
}  # fmt: skip


@pytest.mark.parametrize(("files", "code"), LIES.values(), ids=LIES)
def test_what_the_sandbox_says_is_not_believed(models, tmp_path, files, code):
    (tmp_path / "p").write_bytes(pickle.dumps(models["ridge"]))
    error = code_of(Asked(file=tmp_path / "p", out=tmp_path / "out"), Lying(**files))
    assert error.code == code


class Objecting(Lying):
    """A second opinion that sees more than our rules do."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def job(self, name, folder, tell):
        assert name == "scan", "it went on"
        (folder / "answer.json").write_text(json.dumps(self.answer))
        return ""


@pytest.mark.parametrize(
    "answer",
    [
        {"tool": "x", "failed": True, "names": []},
        {"tool": "x", "failed": False, "names": [["os", "system", "dangerous"]]},
        {"tool": "x", "failed": False, "names": [["a", "b", "suspicious"]]},
    ],
    ids=["cannot read it", "dangerous", "a name that nobody else saw"],
)
def test_the_second_opinion_can_say_no(models, tmp_path, answer):
    (tmp_path / "p").write_bytes(pickle.dumps(models["ridge"]))
    error = code_of(Asked(file=tmp_path / "p", out=tmp_path / "out"), Objecting(answer))
    assert error.code == "convert.second-opinion"
