"""Code that a release brings along: what it may give, what it may not do, and what happens when it dies."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import runtime_models as models

import parts
from falaj.base.errors import FalajError, Unverified
from falaj.base.sandbox import Limits, absent
from falaj.facts.models import Datatype, Schema, Tensor
from falaj.serving.runtimes import pipe
from falaj.serving.runtimes.function import FunctionModel, Stopped

ROWS = {"x": np.arange(12, dtype=np.float32).reshape(2, 6)}


@pytest.fixture(scope="module", autouse=True)
def _sandbox():
    if absent():
        parts.absent("bubblewrap", absent())


def function(tmp_path, code, schema=None, **more):
    (tmp_path / "model.py").write_text(code)
    return FunctionModel(tmp_path, schema or models.schema(), **more)


GIVEN = {
    "one array": "def predict(inputs): return inputs['x'][:, 0]",
    "one column": "def predict(inputs): return inputs['x'][:, :1]",
    "doubles": "def predict(inputs): return inputs['x'][:, 0].astype('f8')",
    "a list": "def predict(inputs): return [float(row[0]) for row in inputs['x']]",
    "by name": "def predict(inputs): return {'p': inputs['x'][:, 0], 'more': [1, 2]}",
    "two probabilities": "import numpy as np\ndef predict(inputs): return np.stack([1 - inputs['x'][:, 0], inputs['x'][:, 0]], 1)",
    "with a state": "def load(folder): return 0\ndef predict(at, inputs): return inputs['x'][:, at]",
}


@pytest.mark.parametrize("code", GIVEN.values(), ids=GIVEN)
def test_what_a_function_may_give(tmp_path, code):
    (found,) = function(tmp_path, code).run(ROWS)
    assert found.dtype == np.float32
    assert found.tolist() == [[0.0], [6.0]]


def test_several_inputs_and_outputs_of_several_types(tmp_path):
    schema = Schema(
        inputs=(
            Tensor(name="word", datatype=Datatype.BYTES, shape=(-1,)),
            Tensor(name="n", datatype=Datatype.INT64, shape=(-1, 2)),
        ),
        outputs=(
            Tensor(name="long", datatype=Datatype.BOOL, shape=(-1,)),
            Tensor(name="said", datatype=Datatype.BYTES, shape=(-1,)),
        ),
    )
    code = """
import numpy as np
def predict(inputs):
    words = inputs["word"]
    return np.array([len(w) > 2 for w in words]), [w * int(n[0]) for w, n in zip(words, inputs["n"])]
"""
    words = np.array(["ab", "فلج"], np.object_)
    feeds = {"word": words, "n": np.array([[2, 0], [1, 0]])}
    long, said = function(tmp_path, code, schema).run(feeds)
    assert long.tolist() == [False, True]
    assert said.tolist() == ["abab", "فلج"]


WRONG = {
    "too few rows": ("def predict(inputs): return [1.0]", "got shape (1,) for 2 rows"),
    "texts": ("def predict(inputs): return ['a', 'b']", "expected FP32"),
    "another name": ("def predict(inputs): return {'q': [1, 2]}", "it gave no output 'p'"),
    "an exception": ("def predict(inputs): return 1 / 0", "ZeroDivisionError"),
    "an exception without end": (
        "def predict(inputs): raise ValueError('x' * 10**6)",
        "ValueError",
    ),
    "objects": ("def predict(inputs): return [object(), object()]", "expected FP32"),
    "nothing": ("def predict(inputs): return None", "for 2 rows"),
}


@pytest.mark.parametrize(("code", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_is_said_and_the_next_question_is_answered(tmp_path, code, words):
    wrapped = (
        code
        + "\n_wrong = predict\ndef predict(inputs):\n    return _wrong(inputs) if inputs['x'][0, 0] == 0 else inputs['x'][:, 0]\n"
    )
    model = function(tmp_path, wrapped)
    with pytest.raises(ValueError) as error:
        model.run(ROWS)
    assert words in str(error.value)
    assert len(str(error.value)) <= 600
    assert model.run({"x": ROWS["x"] + 1})[0].tolist() == [[1.0], [7.0]]


BROKEN = {
    "no function": ("x = 1", "no attribute 'predict'"),
    "no Python": ("def predict(:", "SyntaxError"),
    "an import that is not there": ("import nothing_of_that_name", "ModuleNotFoundError"),
    "an end": ("import os; os._exit(3)", "ended"),
}


@pytest.mark.parametrize(("code", "words"), BROKEN.values(), ids=BROKEN)
def test_code_that_cannot_be_loaded_is_refused_with_its_last_words(tmp_path, code, words):
    with pytest.raises(Unverified) as refused:
        function(tmp_path, code)
    assert refused.value.code == "serving.model-broken"
    assert words in refused.value.problems[0].why


ESCAPES = """
import os, socket, subprocess
from pathlib import Path
def tried(what):
    try:
        what()
        return 1.0
    except BaseException:
        return 0.0
def predict(inputs):
    found = [
        tried(lambda: socket.socket()),
        tried(lambda: subprocess.run(["/bin/true"])),
        tried(lambda: open("/job/model.py", "a")),
        tried(lambda: open("SECRET").read()),
        tried(lambda: os.kill(1, 0) or os.listdir("/home")),
        1.0 if os.environ.get("FALAJ_SECRET") else 0.0,
    ]
    return [sum(found)] * 2
"""


def test_it_reaches_nothing_of_this_machine(tmp_path, monkeypatch):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    monkeypatch.setenv("FALAJ_SECRET", "secret")
    home = tmp_path / "model"
    home.mkdir()
    model = function(home, ESCAPES.replace("SECRET", str(secret), 1))
    assert model.run(ROWS)[0].tolist() == [[0.0], [0.0]]
    assert "print" not in (home / "model.py").read_text()


def test_one_that_hangs_is_ended_and_starts_again(tmp_path):
    code = "import time\ndef predict(inputs):\n    time.sleep(float(inputs['x'][0, 0]))\n    return inputs['x'][:, 0]"
    model = function(tmp_path, code, timeout_s=0.5)
    pid = model.child.process.pid
    with pytest.raises(Stopped, match="too long"):
        model.run({"x": ROWS["x"] + 30})
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(Stopped, match="a moment ago"):
        model.run(ROWS)
    time.sleep(1.05)
    assert model.run(ROWS)[0].tolist() == [[0.0], [6.0]]


def test_one_that_dies_starts_again_from_the_bytes_that_were_verified(tmp_path):
    code = "import os\ndef predict(inputs):\n    if inputs['x'][0, 0] == 9: os._exit(1)\n    return inputs['x'][:, 0]"
    model = function(tmp_path, code)
    (tmp_path / "model.py").write_text(
        "def predict(inputs): return inputs['x'][:, 1]"
    )  # changed since
    with pytest.raises(Stopped, match="ended"):
        model.run({"x": ROWS["x"] + 9})
    time.sleep(1.05)
    assert model.run(ROWS)[0].tolist() == [[0.0], [6.0]]


def test_memory_has_an_end(tmp_path):
    code = "def predict(inputs):\n    hold = bytearray(3 << 30)\n    return inputs['x'][:, 0]"
    model = function(tmp_path, code, limits=Limits(memory_mb=1024, seconds=0, file_mb=1))
    with pytest.raises(ValueError, match="MemoryError"):
        model.run(ROWS)


def test_large_batches_go_through_the_pipe(tmp_path):
    model = function(tmp_path, "def predict(inputs): return inputs['x'][:, 0]")
    x = np.random.default_rng(1).normal(size=(200_000, 6)).astype(np.float32)
    assert np.array_equal(model.run({"x": x})[0][:, 0], x[:, 0])


def test_the_process_goes_with_the_model(tmp_path):
    model = function(tmp_path, "def predict(inputs): return inputs['x'][:, 0]")
    pid, kept = model.child.process.pid, Path(model.kept.name)
    del model
    assert not kept.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_without_a_sandbox_nothing_is_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FalajError) as refused:
        function(tmp_path, "raise SystemExit('it ran')")
    assert refused.value.code == "serving.no-sandbox"
    assert "bubblewrap" in refused.value.problems[0].fix


def test_models_from_code_of_mlflow():
    parts.suite("mlflow", "tests/parts/suites/pyfunc_suite.py")


# --- the pipe itself ---


def joined(pieces):
    return b"".join(bytes(piece) for piece in pieces)


def test_arrays_come_back_as_they_went():
    given = {
        "f": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1],
        "b": np.array([True, False]),
        "t": np.array(["a", "فلج"], np.object_),
        "e": np.zeros((2, 0), np.int64),
    }
    data = joined(pipe.pack(pipe.RUN, given, 2))
    length, kind, version, tensors, rows = pipe.HEAD.unpack_from(data)
    assert (length, kind, version, tensors, rows) == (len(data) - 4, 1, 1, 4, 2)
    found = pipe.unpack(tensors, memoryview(data)[pipe.HEAD.size :])
    for name, array in given.items():
        assert found[name].tolist() == array.tolist()
        assert found[name].shape == array.shape


def test_no_lie_about_sizes_is_believed():
    data = joined(pipe.pack(pipe.ANSWER, {"p": np.arange(4.0), "q": np.array(["a"])}, 4))[
        pipe.HEAD.size :
    ]
    draw = np.random.default_rng(0)
    whole = 0
    for _ in range(20_000):
        lie = bytearray(data)
        for _ in range(int(draw.integers(1, 4))):
            lie[int(draw.integers(len(lie)))] = int(draw.integers(256))
        cut = lie[: int(draw.integers(len(lie) + 1))] if draw.random() < 0.3 else lie
        try:
            pipe.unpack(2, memoryview(cut))
            whole += 1
        except pipe.Malformed:
            continue
    assert whole < 20_000
