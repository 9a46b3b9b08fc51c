"""Tables and parts in a bucket, against a store of our own that can lie."""

from __future__ import annotations

import pytest
import stores

from falaj.base.errors import Conflict, FalajError
from falaj.links.s3.tables import S3Tables


@pytest.fixture
def store():
    made = stores.OwnStore()
    yield made
    made.close()


@pytest.fixture
def tables(store):
    return S3Tables(store.endpoint, login=lambda: (store.credentials, ""))


def test_what_lies_under_an_address_is_brought_in_order(store, tables, tmp_path):
    store.objects |= {
        "in/b.csv": b"b",
        "in/a.csv": b"a",
        "in2/c.csv": b"c",
        "in/deep/d.csv": b"d",
        "in/": b"",
    }
    tables.bring("s3://models/in", tmp_path)
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [b"a", b"b", b"d"]
    one = tmp_path / "one"
    one.mkdir()
    tables.bring("s3://models/in/b.csv", one)
    assert [path.read_bytes() for path in one.iterdir()] == [b"b"]


@pytest.mark.parametrize("address", ["s3://models/nothing", "s3://models/inn"])
def test_nothing_there_is_said(store, tables, tmp_path, address):
    store.objects["in/a.csv"] = b"a"
    with pytest.raises(FalajError) as refused:
        tables.bring(address, tmp_path)
    assert refused.value.code == "score.no-input"


@pytest.mark.parametrize(
    "address", ["s3://models", "s3://models/../x", "s3://Models/x", "s3://models/a b"]
)
def test_addresses_that_are_none(tables, tmp_path, address):
    with pytest.raises(FalajError) as refused:
        tables.bring(address, tmp_path)
    assert refused.value.code == "remote.bad-address"


@pytest.fixture
def job(tmp_path):
    folder = tmp_path / "job"
    folder.mkdir()
    for name in ("part-00000.parquet", "part-00000.json", "job.json", ".lock"):
        (folder / name).write_bytes(name.encode())
    return folder


def test_the_end_is_sent_last_and_twice_is_once(store, tables, job):
    assert tables.send(job, "s3://models/out") == 3
    assert list(store.objects)[-1] == "out/job.json"
    assert "out/.lock" not in store.objects
    assert tables.send(job, "s3://models/out") == 0


def test_other_bytes_under_a_name_are_a_refusal(store, tables, job):
    store.objects["out/part-00000.parquet"] = b"part-00000.parqueX"
    with pytest.raises(Conflict) as refused:
        tables.send(job, "s3://models/out")
    assert refused.value.code == "score.other-job"
    assert "out/job.json" not in store.objects


def test_plain_http_to_another_machine_is_refused():
    with pytest.raises(FalajError) as refused:
        S3Tables("http://store.example")
    assert refused.value.code == "remote.plain-http"


def test_a_store_without_an_address(monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with pytest.raises(FalajError) as refused:
        S3Tables()
    assert refused.value.code == "remote.bad-address"
