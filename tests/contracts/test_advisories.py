"""ports/advisories.py: a bundle is whole, signed in its role, and what was kept is what is read."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime, timedelta

import pytest
from advisory_records import BUILT, archive, bundle, events, record
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from falaj.base import dsse
from falaj.base.errors import FalajError, NotFound, Unverified
from falaj.facts.trust import keys_for
from falaj.links.keyring.keys import KeyRing
from falaj.links.osv.records import KIND, build
from falaj.links.osv.shelf import OsvShelf

FLASK = record("GHSA-1", "Flask", events(("introduced", "0"), ("fixed", "2.0")))
GONE = record("GHSA-2", "flask", withdrawn="2026-01-01T00:00:00Z")
NPM = record("GHSA-3", "flask", ecosystem="npm")


@pytest.fixture(scope="module")
def ring(tmp_path_factory):
    return KeyRing(tmp_path_factory.mktemp("ring") / "keys", clock=lambda: BUILT)


@pytest.fixture(scope="module")
def made(tmp_path_factory, ring):
    return bundle(tmp_path_factory.mktemp("bundle"), ring, FLASK, GONE, NPM)


@pytest.fixture
def shelf(tmp_path):
    return OsvShelf(tmp_path / "shelf")


@pytest.fixture
def keys(ring, made):
    return keys_for(ring.trust(), "vulndb", BUILT)


def test_what_a_bundle_states(shelf, keys, made):
    stated, hint = shelf.look(made, keys)
    assert (stated.ecosystem, stated.records, stated.withdrawn) == ("PyPI", 2, 1)
    assert stated.built_at == BUILT
    assert stated.newest == datetime(2026, 2, 27, 10, tzinfo=UTC)
    assert (stated.source, stated.licence) == ("all.zip", "CC-BY-4.0")
    assert hint in keys


def test_what_was_kept_is_read(shelf, keys, made):
    stated, _ = shelf.look(made, keys)
    shelf.keep(made, stated)
    shelf.keep(made, stated)
    here = shelf.opened(stated.sha256)
    assert [one["id"] for one in here.of("flask")] == ["GHSA-1", "GHSA-2"]
    assert here.of("Flask") == []
    assert here.of("flask' OR 1=1 --") == []


def test_the_same_archive_gives_the_same_database(tmp_path, ring, keys, shelf):
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        stated, _ = shelf.look(bundle(tmp_path / name, ring, FLASK, GONE), keys)
        digests.append(stated.sha256)
    assert digests[0] == digests[1]


def refused(code, call, *arguments):
    with pytest.raises(FalajError) as found:
        call(*arguments)
    assert found.value.code == code
    assert found.value.problems[0].why
    return found.value


def test_a_key_of_another_role_does_not_count(tmp_path, ring, shelf):
    made = bundle(tmp_path, ring, FLASK, signer="gate")
    error = refused(
        "scans.bundle-signature", shelf.look, made, keys_for(ring.trust(), "vulndb", BUILT)
    )
    assert isinstance(error, Unverified)
    assert "not trusted for this" in error.problems[0].why


def test_a_key_of_somebody_else_does_not_count(tmp_path, keys, shelf):
    other = KeyRing(tmp_path / "other", clock=lambda: BUILT)
    refused("scans.bundle-signature", shelf.look, bundle(tmp_path, other, FLASK), keys)


def test_a_key_whose_time_is_over_does_not_count(ring, made, shelf):
    later = keys_for(ring.trust(), "vulndb", BUILT + timedelta(days=4000))
    refused("scans.bundle-signature", shelf.look, made, later)


def test_another_database_under_a_good_statement_is_refused(tmp_path, ring, keys, made, shelf):
    other = bundle(tmp_path, ring, record("GHSA-9", "numpy"))
    with zipfile.ZipFile(made) as good, zipfile.ZipFile(other) as bad:
        parts = {
            "vulndb.dsse.json": good.read("vulndb.dsse.json"),
            "advisories.db": bad.read("advisories.db"),
        }
    forged = written(tmp_path / "forged.zip", parts)
    stated, _ = shelf.look(forged, keys)
    refused("scans.bundle-changed", shelf.keep, forged, stated)
    with pytest.raises(NotFound):
        shelf.opened(stated.sha256)
    assert not list((tmp_path / "shelf").glob("*"))


def written(path, parts):
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in parts.items():
            packed.writestr(name, data)
    return path


@pytest.fixture(scope="module")
def content(made):
    with zipfile.ZipFile(made) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_byte_can_be_changed(tmp_path, keys, content, shelf, data):
    name = data.draw(st.sampled_from(sorted(content)))
    place = data.draw(st.integers(0, len(content[name]) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(content[name])
    changed[place] ^= 1 << bit
    forged = written(tmp_path / "forged.zip", {**content, name: bytes(changed)})
    with pytest.raises(Unverified) as found:
        shelf.keep(forged, shelf.look(forged, keys)[0])
    assert found.value.code.startswith("scans.b")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_byte_of_the_file_that_was_changed_changes_nothing(
    tmp_path, keys, made, shelf, place, bit
):
    """Of the zip file's own bytes some are free; what comes out is what was signed, or nothing."""
    whole = bytearray(made.read_bytes())
    whole[int(place * len(whole))] ^= 1 << bit
    forged = tmp_path / "forged.zip"
    forged.write_bytes(whole)
    try:
        stated, _ = shelf.look(forged, keys)
        shelf.keep(forged, stated)
    except Unverified:
        return
    assert [one["id"] for one in shelf.opened(stated.sha256).of("flask")] == ["GHSA-1", "GHSA-2"]


NO_BUNDLES = {
    "not a zip file": lambda path, _: path.write_bytes(b"advisories"),
    "empty": lambda path, _: path.write_bytes(b""),
    "one member more": lambda path, parts: written(path, {**parts, "extra.txt": b"x"}),
    "no statement": lambda path, parts: written(path, {"advisories.db": parts["advisories.db"]}),
    "a statement that is no JSON": lambda path, parts: written(
        path, {**parts, "vulndb.dsse.json": b"{"}
    ),
    "a statement of 2 MiB": lambda path, parts: written(
        path, {**parts, "vulndb.dsse.json": b" " * (2 << 20)}
    ),
}


@pytest.mark.parametrize("write", NO_BUNDLES.values(), ids=NO_BUNDLES)
def test_what_is_no_bundle_is_refused(tmp_path, keys, content, shelf, write):
    path = tmp_path / "bad.zip"
    write(path, content)
    refused("scans.bad-bundle", shelf.look, path, keys)


STATEMENTS = {
    "no statement": {"a": 1},
    "a form that is not known": {"v": 2},
    "a digest that is none": {"sha256": "sha256:0"},
    "a size below nothing": {"records": "many"},
}


@pytest.mark.parametrize("change", STATEMENTS.values(), ids=STATEMENTS)
def test_a_signed_statement_of_another_form_is_refused(
    tmp_path, ring, keys, content, shelf, change
):
    import base64

    payload = json.loads(base64.b64decode(json.loads(content["vulndb.dsse.json"])["payload"]))
    sealed = dsse.seal({**payload, **change}, ring.signer("vulndb"), kind=KIND)
    forged = written(
        tmp_path / "bad.zip", {**content, "vulndb.dsse.json": json.dumps(sealed).encode()}
    )
    refused("scans.bad-bundle", shelf.look, forged, keys)


def test_a_statement_of_another_kind_is_refused(tmp_path, ring, keys, content, shelf):
    sealed = dsse.seal({"v": 1}, ring.signer("vulndb"), kind="application/vnd.falaj.plan+json")
    parts = {**content, "vulndb.dsse.json": json.dumps(sealed).encode()}
    refused("scans.bundle-signature", shelf.look, written(tmp_path / "bad.zip", parts), keys)


@pytest.mark.parametrize("size", [0, 1, 1 << 40])
def test_a_size_that_is_not_that_of_the_database_is_refused(keys, made, shelf, size):
    stated, _ = shelf.look(made, keys)
    with pytest.raises(Unverified):
        shelf.keep(made, replace(stated, bytes=size))


def test_a_database_that_was_changed_here_is_refused(tmp_path, keys, made, shelf):
    stated, _ = shelf.look(made, keys)
    shelf.keep(made, stated)
    (file,) = (tmp_path / "shelf").iterdir()
    file.write_bytes(file.read_bytes().replace(b"GHSA-1", b"GHSA-0"))
    refused("scans.database-damaged", shelf.opened, stated.sha256)


def test_what_is_forgotten_is_gone(keys, made, shelf):
    stated, _ = shelf.look(made, keys)
    shelf.keep(made, stated)
    shelf.forget(stated.sha256)
    shelf.forget(stated.sha256)
    refused("scans.no-database", shelf.opened, stated.sha256)


ARCHIVES = {
    "nothing about these packages": (NPM,),
    "a record that is no JSON": (FLASK, b"{"),
    "a record that is a list": (FLASK, b"[]"),
    "a record without a name": (FLASK, b'{"affected": []}'),
    "nothing at all": (),
}


@pytest.mark.parametrize("records", ARCHIVES.values(), ids=ARCHIVES)
def test_no_database_is_built_from_a_part(tmp_path, ring, records):
    ring.create("vulndb", ("vulndb",))
    source = archive(tmp_path / "all.zip", *records)
    target = tmp_path / "bundle.zip"
    with pytest.raises(FalajError) as found:
        build(source, target, ecosystem="PyPI", signer=ring.signer("vulndb"), now=BUILT)
    assert found.value.code == "scans.bad-archive"
    assert not target.exists()


def test_an_archive_that_was_cut_off_is_refused(tmp_path, ring):
    source = archive(tmp_path / "all.zip", FLASK)
    source.write_bytes(source.read_bytes()[:-30])
    with pytest.raises(FalajError) as found:
        build(source, tmp_path / "b.zip", ecosystem="PyPI", signer=ring.signer("vulndb"), now=BUILT)
    assert found.value.code == "scans.bad-archive"


def test_a_record_that_stands_twice_is_refused(tmp_path, ring):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as packed:
        for name in ("a.json", "b.json"):
            packed.writestr(name, json.dumps(FLASK))
    with pytest.raises(FalajError, match="no database"):
        build(
            tmp_path / "all.zip", tmp_path / "b.zip", ecosystem="PyPI",
            signer=ring.signer("vulndb"), now=BUILT,
        )  # fmt: skip
