"""Files as the real libraries write them pass the gate, and their pickles the door of the sandbox."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import parts
from falaj.base.sandbox import absent
from falaj.evaluation.formats.foreign import admitted
from falaj.evaluation.security import Format, Quarantine, decide

CHILD = Path(__file__).parents[2] / "parts" / "formats_child.py"
KINDS = {
    ".ubj": "xgboost-ubj",
    ".json": "xgboost-json",
    ".txt": "lightgbm",
    ".skops": "skops",
    ".safetensors": "safetensors",
    ".npz": "npz",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".pt": "torch",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    python = parts.environment("formats") / "python"
    folder = tmp_path_factory.mktemp("written")
    subprocess.run([python, CHILD, folder], check=True, capture_output=True, timeout=600)
    return folder


def test_every_file_of_the_libraries_passes(written):
    files = [path for path in written.iterdir() if path.is_file()]
    assert {path.suffix for path in files} >= set(KINDS) - {".pt"}
    for path in files:
        found = decide(path)
        assert isinstance(found, Format), (path.name, found)
        assert found.name == KINDS[path.suffix]


def test_every_honest_pickle_may_go_to_the_sandbox(written):
    files = sorted((written / "foreign").iterdir())
    assert len(files) >= 90
    for path in files:
        assert isinstance(decide(path), Quarantine), "never loaded as it is"
        found = admitted(path.read_bytes())
        assert found.kind.startswith(("sklearn.", "xgboost.", "lightgbm.")), path.name


NAMES = """
import importlib, warnings
warnings.simplefilter("ignore")
from falaj.evaluation.formats.classes import PICKLED, TYPES
for table in (PICKLED, TYPES):
    for module, names in table.items():
        found = importlib.import_module(module)
        print(*(f"{module}.{name}" for name in names if not hasattr(found, name)))
"""


def test_the_list_names_what_there_is():
    """A name of nothing is harmless, and says that the list was not reviewed."""
    python = parts.environment("formats") / "python"
    done = subprocess.run([python, "-c", NAMES], check=True, capture_output=True, text=True)
    old = {"sklearn.compose._column_transformer._RemainderColsList", "builtins.NoneType"}
    assert set(done.stdout.split()) <= old


def test_torch_saves_what_is_no_state_dict(written):
    if not (written / "hostile").is_dir():
        parts.absent("torch", "it is not installed in build/parts/formats")
    for path in (written / "hostile").iterdir():
        assert isinstance(decide(path), Quarantine), path.name
    assert len(list(written.glob("*.pt"))) == 4


@pytest.mark.parametrize(
    ("file", "kind"),
    [("xgb.5.pkl", "xgboost-ubj"), ("lgbm.z.joblib", "lightgbm"), ("tree.joblib", "onnx")],
)
def test_the_verb_converts_with_a_second_opinion(written, tmp_path, file, kind):
    why = absent()
    if why:
        parts.absent("bubblewrap", why)
    (path,) = (written / "foreign").glob(f"*[0-9] {file}")
    falaj = parts.environment("formats") / "falaj"
    words = [falaj, "model", "convert", path, "--out", tmp_path / "out", "--json"]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["data"]
    assert (found["format"], found["drawn"]) == (kind, True)
    assert found["opinion"].startswith("picklescan 1.")
    assert found["apart"] < 1e-4
