"""Building: the same bytes each time, whole or not at all, and nothing that may not be."""

from __future__ import annotations

import json
import shutil

import pytest

from falaj.base import canonical, digests
from falaj.base.errors import Conflict, FalajError, Unverified
from falaj.facts.models import Schema
from falaj.facts.runs import Code
from falaj.releases.build import build, evidence_digest, release_id
from falaj.releases.verify import read_manifest


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def small(folder, model, **other):
    parts = {
        "model": "m",
        "version": "1",
        "runtime": "onnx",
        "task": "t",
        "schema": Schema(inputs=(), outputs=()),
        "threshold": None,
        "code": Code(),
        "run": "r",
        "datasets": (),
        "label": other.pop("label"),
        "created": other.pop("created"),
        "model_files": {"m.onnx": model},
        "environment_lock": b"",
        "reference": {},
        "card": "",
        "mlbom": {},
        "evidence": (),
    }
    return build(folder, **{**parts, **other})


@pytest.fixture
def simple(tmp_path, make_release):
    made = make_release().manifest
    model = tmp_path / "m.onnx"
    model.write_bytes(b"model")

    def go(folder, **other):
        return small(folder, model, **{"label": made.label, "created": made.created, **other})

    return go


def test_the_same_inputs_give_the_same_bytes(tmp_path, make_release):
    made = make_release(signer=None)
    again = tmp_path / "again"
    # ECDSA signatures differ each time, so the evidence is handed over as it was sealed.
    parts = json.loads((made.folder / "mlbom.cdx.json").read_text())
    sealed = [
        json.loads((made.folder / path).read_text())
        for path in sorted(made.manifest.files)
        if path.startswith("evidence/")
    ]
    m = made.manifest
    built = build(
        again,
        model=m.model,
        version=m.version,
        runtime=m.runtime,
        task=m.task,
        schema=m.schema,
        threshold=m.threshold,
        code=m.code,
        run=m.run,
        datasets=m.datasets,
        label=m.label,
        created=m.created,
        model_files={
            path.removeprefix("model/"): made.folder / path
            for path in m.files
            if path.startswith("model/")
        },
        environment_lock=(made.folder / "environment.lock").read_bytes(),
        reference={
            path.removeprefix("reference/"): (made.folder / path).read_bytes()
            for path in m.files
            if path.startswith("reference/")
        },
        card=(made.folder / "card.md").read_text(),
        mlbom=parts,
        evidence=sealed,
    )
    assert contents(again) == contents(made.folder)
    assert built == m
    assert release_id(built) == made.id


def test_the_id_is_the_digest_of_release_json(make_release):
    made = make_release()
    assert digests.of_file(made.folder / "release.json") == made.id


def test_release_json_lists_every_file_but_itself_and_the_signature(make_release):
    made = make_release()
    there = {name: digests.of_bytes(data) for name, data in contents(made.folder).items()}
    there.pop("release.json")
    there.pop("signature.json")
    assert made.manifest.files == there


def test_release_json_holds_no_float_and_reads_back(make_release):
    made = make_release()
    data = (made.folder / "release.json").read_bytes()
    assert canonical.dumps(canonical.loads(data)) == data
    assert read_manifest(data) == made.manifest
    assert read_manifest(data).schema.inputs[0].columns[0].minimum == -60.0


def test_another_spelling_of_release_json_is_refused(make_release):
    data = (make_release().folder / "release.json").read_bytes()
    for other in (data + b"\n", data.replace(b'"rows":336776', b'"rows":"336776"')):
        with pytest.raises(ValueError):
            read_manifest(other)


def test_evidence_digest_moves_with_the_evidence_only(make_release):
    one, two = make_release(version="1"), make_release(version="2")
    # Sealed anew, so the signatures and with them the digests differ.
    assert evidence_digest(one.manifest) != evidence_digest(two.manifest)
    assert evidence_digest(one.manifest) == digests.of_tree(
        {p: d for p, d in one.manifest.files.items() if p.startswith("evidence/")}
    )


def test_building_the_same_release_again_is_not_an_error(tmp_path, simple):
    assert simple(tmp_path / "r") == simple(tmp_path / "r")
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_another_release_in_the_same_folder_is_refused(tmp_path, simple):
    simple(tmp_path / "r")
    with pytest.raises(Conflict) as caught:
        simple(tmp_path / "r", card="other")
    assert caught.value.code == "releases.exists"
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_a_release_without_model_is_refused(tmp_path, simple):
    with pytest.raises(FalajError) as caught:
        simple(tmp_path / "r", model_files={})
    assert caught.value.code == "releases.no-model"


BAD_NAMES = {
    "leads out": "../m.onnx",
    "absolute": "/m.onnx",
    "git content is left unsigned by model signing": ".git/config",
    "git attributes in any case": ".GitAttributes",
    "backslash": "a\\b",
    "control character": "a\x07b",
    "invisible character": "a\u202eb",
    "not NFC": "e\u0301.onnx",
    "device of Windows": "con.onnx",
    "ends with a dot": "model.",
    "not ASCII": "نموذج.onnx",
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_names_that_may_not_be_are_refused(tmp_path, simple, name):
    with pytest.raises(Unverified) as caught:
        simple(tmp_path / "r", reference={name: b"1"})
    assert caught.value.code == "releases.unsafe-path"
    assert not (tmp_path / "r").exists()


def test_names_that_collide_without_case_are_refused(tmp_path, simple):
    with pytest.raises(Unverified):
        simple(tmp_path / "r", reference={"A.json": b"1", "a.json": b"2"})


def test_a_model_file_that_vanishes_leaves_nothing_behind(tmp_path, simple):
    with pytest.raises(OSError):
        simple(tmp_path / "r", model_files={"m.onnx": tmp_path / "gone"})
    assert not (tmp_path / "r").exists()
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


def test_evidence_files_are_named_after_what_they_say(make_release):
    names = {p for p in make_release().manifest.files if p.startswith("evidence/")}
    assert names == {
        "evidence/gate-quality.dsse.json",
        "evidence/gate-security.dsse.json",
        "evidence/provenance.dsse.json",
        "evidence/test-result-quality.dsse.json",
        "evidence/test-result-security.dsse.json",
    }


def test_a_copy_of_the_folder_is_the_same_release(tmp_path, make_release):
    made = make_release()
    shutil.copytree(made.folder, tmp_path / "copy")
    assert digests.of_file(tmp_path / "copy" / "release.json") == made.id
