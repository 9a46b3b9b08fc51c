"""The promises of ports/blobs.py, over every adapter."""

from __future__ import annotations

import hashlib
import os
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falaj.base import digests, fenc
from falaj.links.files.blobs import FileBlobs
from falaj.ports.blobs import BlobMissing


class Scope:
    """The port Sealing under one key."""

    def __init__(self, key):
        self.key = key

    def seal(self, source, to, object):
        fenc.seal(source, to, self.key, {"object": object})

    def opened(self, source, object):
        return fenc.opened(source, self.key, object=object)

    def name(self, object):
        return hashlib.sha256(self.key + object.encode()).hexdigest()

    def object(self, source):
        return fenc.labels_of(source)["object"]


@pytest.fixture(params=["files", "sealed files"])
def blobs(request, tmp_path):
    return FileBlobs(tmp_path / "blobs", Scope(b"k" * 32) if "sealed" in request.param else None)


def test_sealed_files_hold_nothing_that_can_be_read_without_the_key(tmp_path):
    sealed = FileBlobs(tmp_path, Scope(b"k" * 32))
    digest = sealed.put(b"a canary in a mine")
    (tmp_path / "f").write_bytes(b"a canary in a file" * 200_000)
    other = sealed.put_file(tmp_path / "f")
    for one in (digest, other):
        assert b"canary" not in stored(sealed, one).read_bytes()
        for without in (None, Scope(b"l" * 32)):
            wrong = FileBlobs(tmp_path, without)
            assert not wrong.has(one)
            with pytest.raises(BlobMissing):
                wrong.get(one)
    stored(sealed, digest).chmod(0o644)
    stored(sealed, digest).write_bytes(stored(sealed, other).read_bytes())
    with pytest.raises(BlobMissing, match="another object"):
        FileBlobs(tmp_path, Scope(b"k" * 32)).get(digest)


def stored(blobs, digest):
    hexed = digest.removeprefix("sha256:")
    if (blobs.folder / hexed[:2] / hexed[2:]).exists():
        return blobs.folder / hexed[:2] / hexed[2:]
    hexed = Scope(b"k" * 32).name(digest)
    return blobs.folder / hexed[:2] / hexed[2:]


def alter(blobs, digest, data):
    path = stored(blobs, digest)
    path.chmod(0o644)
    path.write_bytes(data)


@given(data=st.binary(max_size=2000))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None
)
def test_bytes_come_back(blobs, data):
    digest = blobs.put(data)
    assert digest == digests.of_bytes(data)
    assert blobs.has(digest) and blobs.get(digest) == data
    assert blobs.size(digest) == len(data)


def test_storing_twice_is_not_an_error(blobs):
    assert blobs.put(b"x") == blobs.put(b"x")


def test_a_file_is_stored_and_stays(blobs, tmp_path):
    path = tmp_path / "f"
    path.write_bytes(os.urandom(3_000_000))
    digest = blobs.put_file(path)
    assert path.exists() and blobs.get(digest) == path.read_bytes()
    blobs.copy(digest, tmp_path / "deep" / "g")
    assert (tmp_path / "deep" / "g").read_bytes() == path.read_bytes()


def test_what_is_not_there_is_missing(blobs, tmp_path):
    digest = digests.of_bytes(b"never stored")
    assert not blobs.has(digest)
    with pytest.raises(BlobMissing):
        blobs.get(digest)
    with pytest.raises(BlobMissing):
        blobs.copy(digest, tmp_path / "g")
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    "name", ["", "../../etc/passwd", "sha256:..", "sha256:" + "G" * 64, "md5:0"]
)
def test_what_is_no_digest_is_refused(blobs, name, tmp_path):
    for ask in (blobs.get, blobs.has, lambda d: blobs.copy(d, tmp_path / "g")):
        with pytest.raises(BlobMissing):
            ask(name)


ALTERED = {"other bytes": b"other!", "fewer": b"tr", "none": b"", "more": b"trusted and more"}


@pytest.mark.parametrize("data", ALTERED.values(), ids=ALTERED)
def test_altered_bytes_are_never_returned(blobs, data, tmp_path):
    digest = blobs.put(b"trusty")
    assert blobs.has(digest)
    alter(blobs, digest, data)
    assert not blobs.has(digest)
    with pytest.raises(BlobMissing):
        blobs.get(digest)
    with pytest.raises(BlobMissing):
        blobs.copy(digest, tmp_path / "g")
    assert not (tmp_path / "g").exists(), "no half file is left"


def test_storing_again_heals_altered_bytes(blobs, tmp_path):
    digest = blobs.put(b"trusty")
    alter(blobs, digest, b"broken")
    assert blobs.put(b"trusty") == digest
    assert blobs.get(digest) == b"trusty"
    alter(blobs, digest, b"broken")
    (tmp_path / "f").write_bytes(b"trusty")
    assert blobs.put_file(tmp_path / "f") == digest
    assert blobs.get(digest) == b"trusty"


def test_many_at_once_leave_one_whole_file(blobs):
    data = os.urandom(500_000)
    threads = [threading.Thread(target=blobs.put, args=(data,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blobs.get(digests.of_bytes(data)) == data
    assert [p.name for p in blobs.folder.rglob("*.part")] == []
