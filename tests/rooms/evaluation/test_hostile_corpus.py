"""Every kind of hostile file is refused, with a reason; every honest one passes; nothing is run."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import honest
import hostile
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falaj.evaluation.formats import pickles
from falaj.evaluation.formats.classes import PICKLED
from falaj.evaluation.formats.foreign import admitted
from falaj.evaluation.formats.verdict import Refused
from falaj.evaluation.security import Format, Quarantine, check_model_file, decide, decide_bytes
from falaj.facts.checks import Verdict
from falaj.facts.formats import FORMATS

# The canary's place is part of the payloads, so the corpus is made once, for names and for bytes.
CANARY = Path("/nonexistent-folder-of-falaj-tests/canary")
PICKLES = hostile.pickles(CANARY)
FILES = hostile.files(CANARY)
HONEST = honest.files()


@pytest.fixture
def canary(tmp_path):
    place = tmp_path / "canary"
    yield place
    assert not place.exists(), "a payload was run"


def test_the_corpus_is_large_and_all_kinds_differ():
    assert len(PICKLES) >= 74
    assert len(FILES) >= 74
    assert len({*PICKLES.values(), *FILES.values()}) == len(PICKLES) + len(FILES)


def test_every_hostile_file_is_refused_with_a_reason(canary):
    every = hostile.files(canary) | hostile.pickles(canary)
    passed = {
        name: found
        for name, data in every.items()
        if not isinstance(found := decide_bytes(data), Quarantine) or len(found.reason) < 8
    }
    assert passed == {}


@pytest.mark.parametrize("ending", ["onnx", "safetensors", "json", "npz", "pkl", ""])
def test_a_hostile_file_is_refused_whatever_it_is_called(tmp_path, canary, ending):
    for number, data in enumerate((hostile.files(canary) | hostile.pickles(canary)).values()):
        path = tmp_path / f"{number}.{ending}"
        path.write_bytes(data)
        assert isinstance(decide(path), Quarantine)
        path.unlink()


@pytest.mark.parametrize("name", PICKLES)
def test_no_hostile_pickle_passes_the_door_of_the_sandbox(canary, name):
    with pytest.raises(Refused):
        admitted(hostile.pickles(canary)[name])


def test_no_hostile_pickle_passes_inside_torch(canary):
    for name, data in hostile.pickles(canary).items():
        found = decide_bytes(honest.torch_file(root=data))
        assert isinstance(found, Quarantine), name


def test_the_reason_says_what_it_is_about():
    said = {
        "gadget: pty.spawn": "pty.spawn",
        "a dotted name": "dotted name",
        "the extension registry, 1 byte": "extension registry",
        "a name made up on the way": "made up on the way",
        "behind an honest one": "posix.system",
        "a bomb of hashes": "nested",
        "the memo trap": "posix.getcwd",
    }
    for name, words in said.items():
        with pytest.raises(Refused, match=words):
            pickles.examine(PICKLES[name], PICKLED)
    said = {
        "zip: two names of one member": "two names",
        "zip: encrypted": "encrypted",
        "zip: a bomb": "too large",
        "zip: a hidden member": "no directory names",
        "zip: a pickle behind": "behind its end",
        "torch: TorchScript": "TorchScript",
        "parquet: a column in another file": "another file",
        "skops: a type that nobody trusts": "os.system",
        "onnx: external data absolute": "outside the file",
        "json: auto_map, escaped": "auto_map",
        "json: auto_map behind a doubled key": "twice",
        "torch of long ago (tar)": "tar",
        "Keras: a lambda in HDF5": "HDF5",
        "safetensors: a header of 200 MB": "100 MB",
        "lightgbm: sizes that lie": "in a tree",
    }
    for name, words in said.items():
        assert words in decide_bytes(FILES[name]).reason, name


@pytest.mark.parametrize(("kind", "data"), HONEST.values(), ids=HONEST)
def test_every_honest_file_passes(tmp_path, kind, data):
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    for found in (decide(path), decide_bytes(data)):
        assert isinstance(found, Format), found
        assert found.name == kind


def test_every_format_of_the_table_has_an_honest_file():
    assert {kind for kind, _ in HONEST.values()} == set(FORMATS)


def test_a_real_unpickler_does_leave_the_canary(tmp_path):
    """The positive control: what the corpus would do, were it loaded. In a child, and harmless."""
    canary = tmp_path / "canary"
    (tmp_path / "p").write_bytes(hostile.pickles(canary)["gadget: open"])
    code = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))"
    subprocess.run([sys.executable, "-c", code, tmp_path / "p"], check=True)
    assert canary.exists()
    assert decide(tmp_path / "p").reason.startswith("it is a pickle")


def test_the_memo_trap_is_a_trap(tmp_path):
    """A real unpickler calls os.getcwd, though a reader that counts MEMOIZEs sees scikit-learn."""
    (tmp_path / "p").write_bytes(hostile.memo_trap())
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')))"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "p"],
        check=True, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(tmp_path)


def test_the_gate_names_the_file_with_the_reason(tmp_path):
    (tmp_path / "x").write_bytes(FILES["zip: encrypted"])
    result = check_model_file(tmp_path / "x", "weights.npz")
    assert result.verdict is Verdict.FAIL
    assert result.reason == "weights.npz is quarantined: an encrypted zip file"


def test_what_is_no_regular_file_is_quarantined(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    assert isinstance(decide(tmp_path / "pipe"), Quarantine)


# --- parsers never break, never hang -------------------------------------------------------------

SMALL = {name: data for name, (_, data) in HONEST.items() if len(data) < 20_000}


@st.composite
def mutated(draw):
    """An honest file with some bytes changed, cut, doubled or taken from another one."""
    data = bytearray(SMALL[draw(st.sampled_from(sorted(SMALL)))])
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.integers(0, 5)):
            case 0:
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case 1:
                del data[at : at + draw(st.integers(1, 40))]
            case 2:
                data[at:at] = draw(st.binary(max_size=20))
            case 3:
                data[at : at + 4] = draw(st.sampled_from((b"\xff" * 4, b"\0" * 4, b"\x7f" * 4)))
            case 4:
                data += bytes(data[at : at + 30])
            case 5:
                data[at : at + 8] = struct_of(draw(st.integers(0, 2**64 - 1)))
    return bytes(data)


def struct_of(number):
    return number.to_bytes(8, "little")


@settings(max_examples=1500, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_no_mutation_of_an_honest_file_breaks_a_parser(data):
    found = decide_bytes(data)
    assert isinstance(found, Format | Quarantine)


@settings(max_examples=400, deadline=2000)
@given(st.data())
def test_no_mutation_of_a_pickle_breaks_the_inert_unpickler(data):
    name = data.draw(st.sampled_from(sorted(n for n in PICKLES if len(PICKLES[n]) < 5000)))
    raw = bytearray(PICKLES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(Refused):
        assert admitted(bytes(raw)).kind.startswith(("sklearn.", "xgboost.", "lightgbm."))
