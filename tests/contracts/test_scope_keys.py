"""Scope keys: one for everything that is erased together; sealed blobs and cells over them."""

from __future__ import annotations

import io
import json
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from falaj.base import fenc
from falaj.base.errors import NotAllowed
from falaj.base.fenc import Unsealable
from falaj.base.fenclog import public_of
from falaj.links.files.blobs import FileBlobs
from falaj.links.keyring.kek import LocalKms
from falaj.links.keyring.scopes import ScopeCells, ScopeKeys, ScopeSealing
from falaj.links.sql.store import SqlStore
from falaj.ports.blobs import BlobMissing
from falaj.ports.kms import Wrapped

AT = datetime(2026, 3, 1, tzinfo=UTC)
SCOPE = "artifacts/2026-03"


class Bench:
    """A store, a folder of key-encryption keys, and scope keys over both."""

    def __init__(self, folder):
        self.folder = folder
        self.store = SqlStore.open(folder / "store.db")
        self.table = self.store.scopes()
        self.now = AT
        self.month = SCOPE

    def keys(self, **more):
        """As a new process opens them: nothing in memory yet."""
        kms = LocalKms(self.folder / "kek", country=more.pop("country", "ae"))
        return ScopeKeys(
            self.table, kms, residency=more.pop("residency", ("ae",)), now=lambda: self.now
        )

    def sealing(self, keys=None):
        return ScopeSealing(keys or self.keys(), lambda: self.month, "personal")

    def blobs(self, keys=None):
        return FileBlobs(self.folder / "blobs", self.sealing(keys))


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.store.close()


# --- scope keys --------------------------------------------------------------------------------


def test_a_key_is_made_on_first_use_and_found_again(bench):
    version, key = bench.keys().current(SCOPE)
    assert (version, len(key)) == (1, 32)
    assert bench.keys().current(SCOPE) == (1, key)
    assert bench.keys().key(SCOPE, 1) == key
    assert bench.keys().current("artifacts/2026-04")[1] != key
    assert key not in (bench.folder / "store.db").read_bytes()


def test_a_new_version_is_for_new_objects(bench):
    keys = bench.keys()
    _, first = keys.current(SCOPE)
    assert keys.renew(SCOPE) == 2
    version, second = keys.current(SCOPE)
    assert (version, second != first) == (2, True)
    assert bench.keys().key(SCOPE, 1) == first


def test_many_at_once_make_one_key(bench):
    keys = [bench.keys() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda one: one.current(SCOPE), keys))
    assert len(found) == 1


def test_an_unknown_scope_or_version_is_refused(bench):
    bench.keys().current(SCOPE)
    for scope, version in (("other", 1), (SCOPE, 0), (SCOPE, 2)):
        with pytest.raises(Unsealable):
            bench.keys().key(scope, version)


ROWS = {  # a row of the table as somebody could have changed it
    "another scope": lambda one: one._replace(scope="other"),
    "another version": lambda one: one._replace(version=7),
    "another country": lambda one: one._replace(residency="us"),
    "another binding": lambda one: one._replace(binding="0" * 64),
    "another wrapping key": lambda one: one._replace(
        wrapped=Wrapped("kek-000002", one.wrapped.text)
    ),
    "no key": lambda one: one._replace(wrapped=Wrapped(one.wrapped.kek, "")),
}


@pytest.mark.parametrize("change", ROWS.values(), ids=ROWS)
def test_a_row_that_was_changed_opens_nothing(bench, change):
    bench.keys().current(SCOPE)
    (row,) = bench.table.all()
    other = change(row)
    bench.table.erase(SCOPE, AT)
    LocalKms(bench.folder / "kek", country="ae").rotate()
    with bench.store._writer.begin() as connection:
        connection.exec_driver_sql("DELETE FROM scope_key")
    assert bench.table.add(other)
    with pytest.raises(NotAllowed):
        bench.keys().key(other.scope, other.version)


def test_a_provider_in_another_country_is_refused(bench):
    for residency in (("sa",), ("sa", "bh"), ()):
        with pytest.raises(NotAllowed) as caught:
            bench.keys(residency=residency)
        assert caught.value.code == "keys.residency"
    assert bench.keys(residency=("sa", "AE"))


def test_rewrapping_changes_no_object_and_ends_the_old_key(bench):
    blobs = bench.blobs()
    digest = blobs.put(b"one")
    before = {p: p.read_bytes() for p in (bench.folder / "blobs").rglob("*") if p.is_file()}
    keys = bench.keys()
    old = {one.wrapped.kek for one in keys.listed()}
    kek, count = keys.rewrap()
    assert count == len(keys.listed()) == 2  # the month, and the key of the names
    assert {one.wrapped.kek for one in keys.listed()} == {kek}
    assert [path.stem for path in (bench.folder / "kek").glob("*.key")] == [kek]
    assert kek not in old
    assert bench.blobs().get(digest) == b"one"
    assert {p: p.read_bytes() for p in before} == before
    assert keys.rewrap()[1] == 2


def test_scopes_that_are_made_while_all_is_rewrapped_stay_readable(bench):
    made, stop = [], threading.Event()

    def make(name):
        keys, number = bench.keys(), 0
        while not stop.is_set():
            scope = f"artifacts/{name}-{number:03d}"
            made.append((scope, keys.current(scope)))
            number += 1

    threads = [threading.Thread(target=make, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    turns = 0
    while turns < 12 or (len(made) <= 4 and turns < 1000):
        bench.keys().rewrap()
        turns += 1
    stop.set()
    for thread in threads:
        thread.join()
    assert len(made) > 4
    fresh = bench.keys()
    assert all(fresh.key(scope, version) == key for scope, (version, key) in made)
    assert len(list((bench.folder / "kek").glob("*.key"))) <= 2


def test_an_erased_scope_is_gone_and_the_next_one_has_another_key(bench):
    keys = bench.keys()
    blobs = bench.blobs(keys)
    gone = blobs.put(b"of March")
    bench.month = "artifacts/2026-04"
    stays = blobs.put(b"of April")
    (before,) = [one for one in keys.listed() if one.scope == SCOPE]
    assert [one.version for one in keys.erase(SCOPE)] == [1]
    assert keys.erase(SCOPE) == ()
    for anew in (blobs, bench.blobs()):
        assert anew.get(stays) == b"of April"
        assert not anew.has(gone)
        with pytest.raises(BlobMissing):
            anew.get(gone)
    bench.month = SCOPE
    assert keys.current(SCOPE)[0] == 2
    assert bench.blobs().put(b"of March") == gone
    assert bench.blobs().get(gone) == b"of March"
    disk = b"".join(p.read_bytes() for p in bench.folder.glob("store.db*"))
    assert before.wrapped.text.encode() not in disk, "also not in freed pages and the log"
    assert before.binding.encode() not in disk


def test_a_stolen_copy_of_the_wrapped_key_is_worth_nothing_without_its_kek(bench):
    bench.keys().current(SCOPE)
    (row,) = bench.table.all()
    bench.keys().rewrap()
    with pytest.raises(NotAllowed) as caught:
        LocalKms(bench.folder / "kek", country="ae").unwrap(
            row.wrapped, {"scope": SCOPE, "version": "1", "residency": "ae"}
        )
    assert caught.value.code == "keys.kek-missing"


# --- blobs -------------------------------------------------------------------------------------


def files(bench):
    return [p for p in (bench.folder / "blobs").rglob("*") if p.is_file()]


def test_neither_content_nor_digest_lies_on_the_disk(bench):
    digest = bench.blobs().put(b"a canary " * 1000)
    (path,) = files(bench)
    data = path.read_bytes()
    hexed = digest.removeprefix("sha256:")
    assert b"canary" not in data
    for said in (hexed, hexed[:16]):
        assert said not in str(path)
        assert said.encode() not in data
        assert bytes.fromhex(said) not in data


def test_a_header_says_whose_it_is_and_nothing_of_what_it_is(bench):
    bench.blobs().put(b"x")
    (path,) = files(bench)
    with path.open("rb") as source:
        labels = fenc.labels_of(source)
    assert {n: labels[n] for n in ("scope", "scope_version", "classification")} == {
        "scope": SCOPE,
        "scope_version": "1",
        "classification": "personal",
    }


def test_every_blob_is_listed_by_its_digest_and_removed(bench):
    blobs = bench.blobs()
    digests = {blobs.put(text) for text in (b"a", b"b", b"c")}
    assert {digest for digest, _, _ in bench.blobs().kept()} == digests
    for digest in digests:
        bench.blobs().remove(digest)
    assert files(bench) == []


def test_blobs_of_an_erased_scope_can_be_swept(bench):
    blobs = bench.blobs()
    blobs.put(b"a")
    bench.keys().erase(SCOPE)
    again = bench.blobs()
    for digest, _, _ in list(again.kept()):
        assert not again.has(digest)
        again.remove(digest)
    assert files(bench) == []


def test_what_lay_in_the_clear_is_read_there_and_sealed_later(bench):
    plain = FileBlobs(bench.folder / "blobs")
    digests = [plain.put(text * 1000) for text in (b"a", b"b")]
    blobs = bench.blobs()
    assert [blobs.get(d) for d in digests] == [b"a" * 1000, b"b" * 1000]
    assert {d for d, _, _ in blobs.kept()} == set(digests)
    other = blobs.put(b"c")
    assert blobs.seal_rest() == 2
    assert blobs.seal_rest() == 0
    assert all(path.read_bytes().startswith(fenc.MAGIC) for path in files(bench))
    assert [bench.blobs().get(d) for d in digests] == [b"a" * 1000, b"b" * 1000]
    assert bench.blobs().get(other) == b"c"
    assert not FileBlobs(bench.folder / "blobs").has(digests[0])


def relabelled(data, **more):
    start = len(fenc.MAGIC) + 4
    (size,) = struct.unpack(">I", data[len(fenc.MAGIC) : start])
    said = json.loads(data[start : start + size]) | more
    text = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    return fenc.MAGIC + struct.pack(">I", len(text)) + text + data[start + size :]


LABELS = [
    {"scope": "other"},
    {"scope_version": "2"},
    {"scope_version": "x"},
    {"classification": "public"},
    {"object": "0" * 64},
]


@pytest.mark.parametrize("labels", LABELS, ids="-".join)
def test_a_relabelled_blob_is_refused(bench, labels):
    digest = bench.blobs().put(b"x")
    (path,) = files(bench)
    path.chmod(0o644)
    path.write_bytes(relabelled(path.read_bytes(), **labels))
    with pytest.raises(BlobMissing):
        bench.blobs().get(digest)


def test_a_blob_under_the_name_of_another_is_refused(bench):
    blobs = bench.blobs()
    one, two = blobs.put(b"one"), blobs.put(b"two")
    first, second = (bench.folder / "blobs" / blobs._path(d) for d in (one, two))
    second.chmod(0o644)
    second.write_bytes(first.read_bytes())
    with pytest.raises(BlobMissing):
        bench.blobs().get(two)
    assert bench.blobs().get(one) == b"one"


def test_labels_without_their_digest_are_refused(bench):
    bench.blobs().put(b"x")
    (path,) = files(bench)
    for what in ("", "AAAA", "!"):
        source = io.BytesIO(relabelled(path.read_bytes(), what=what))
        with pytest.raises(Unsealable):
            bench.sealing().object(source)


# --- cells -------------------------------------------------------------------------------------


def test_a_cell_opens_in_its_place_only(bench):
    cells = ScopeCells(bench.keys(), "people")
    place = {"table": "person", "column": "name", "row": "01P"}
    sealed = cells.seal(b"Aisha", **place)
    assert b"Aisha" not in sealed
    assert sealed != cells.seal(b"Aisha", **place)
    assert ScopeCells(bench.keys(), "people").opened(sealed, **place) == b"Aisha"
    for elsewhere in ({"table": "remark"}, {"column": "note"}, {"row": "01Q"}):
        with pytest.raises(Unsealable):
            cells.opened(sealed, **place | elsewhere)
    bench.keys().current("others")
    with pytest.raises(Unsealable):
        ScopeCells(bench.keys(), "others").opened(sealed, **place)


def test_no_byte_of_a_cell_is_free(bench):
    cells = ScopeCells(bench.keys(), "people")
    place = {"table": "person", "column": "name", "row": "01P"}
    sealed = cells.seal(b"Aisha", **place)
    for at in range(len(sealed)):
        other = bytearray(sealed)
        other[at] ^= 1
        with pytest.raises(Unsealable):
            cells.opened(bytes(other), **place)
    for cut in (b"", sealed[:4], sealed[:16], sealed[:-1]):
        with pytest.raises(Unsealable):
            cells.opened(cut, **place)


def test_a_place_has_one_spelling(bench):
    cells = ScopeCells(bench.keys(), "people")
    with pytest.raises(ValueError, match="have no"):
        cells.seal(b"x", table="a|b", column="c", row="d")


def test_cells_of_an_erased_scope_are_gone(bench):
    keys = bench.keys()
    cells = ScopeCells(keys, "people")
    place = {"table": "person", "column": "name", "row": "01P"}
    sealed = cells.seal(b"Aisha", **place)
    bench.now = AT + timedelta(days=1)
    keys.erase("people")
    for anew in (cells, ScopeCells(bench.keys(), "people")):
        with pytest.raises(Unsealable, match="erased"):
            anew.opened(sealed, **place)


# --- keys of those who write only ---------------------------------------------------------------


def test_who_writes_gets_the_half_that_opens_nothing(bench):
    version, public = bench.keys().writing("inference/production/2026-03")
    private = bench.keys().reading("inference/production/2026-03", version)
    assert public_of(private) == public
    assert private not in {public, bench.keys().current("inference/production/2026-03")[1]}
    assert bench.keys().writing("inference/production/2026-03") == (version, public)
    assert bench.keys().writing("inference/staging/2026-03")[1] != public
    bench.keys().rewrap()
    assert bench.keys().reading("inference/production/2026-03", version) == private


@pytest.mark.parametrize("version", [0, 2, 99])
def test_a_half_that_never_was_is_not_read(bench, version):
    bench.keys().writing("inference/production/2026-03")
    with pytest.raises(Unsealable, match="no key"):
        bench.keys().reading("inference/production/2026-03", version)


def test_after_an_erasure_others_write_under_a_new_half(bench):
    keys = bench.keys()
    version, public = keys.writing("inference/production/2026-03")
    keys.erase("inference/production/2026-03")
    with pytest.raises(Unsealable, match="was erased"):
        keys.reading("inference/production/2026-03", version)
    again, other = keys.writing("inference/production/2026-03")
    assert again == version + 1
    assert other != public
