"""An evidence pack that is kept: sealed under the workspace's key, opened whole or not at all."""

from __future__ import annotations

import json
import shutil

import pytest
from small_project import TOML, write_project
from typing_hands import run_here

from falaj.base import fenc
from falaj.base.errors import Exit

ALL = TOML + '\n[encryption]\nat_rest = "all"\n'


def ok(here, root, *words):
    done = here(root, *words)
    assert done.code == 0, f"{words}\n{done.out}\n{done.err}"
    return done


def refused(here, root, code, *words):
    done = here(root, *words)
    assert done.code != 0, words
    assert f"[{code}]" in done.err, done.err
    assert "Traceback" not in done.err
    return done


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A project with one release, and its pack beside it."""
    root = write_project(tmp_path_factory.mktemp("packs") / "project", toml=ALL)
    for words in (
        ("run",), ("gate",), ("release", "create"), ("access", "add", "visitor", "--role", "viewer"),
        ("evidence", "export", "flight-delay", "--seal", "-o", "kept.zip.fenc"),
    ):  # fmt: skip
        ok(run_here, root, *words)
    return root


@pytest.fixture
def mine(kept, tmp_path):
    return shutil.copytree(kept, tmp_path / "project", symlinks=True)


def test_what_was_sealed_opens_and_verifies(here, kept):
    data = (kept / "kept.zip.fenc").read_bytes()
    assert data.startswith(fenc.MAGIC)
    assert b"release.json" not in data, "a zip file tells its names"
    ok(here, kept, "evidence", "open", "kept.zip.fenc", "-o", "out/pack.zip")
    assert "everything holds" in ok(here, kept, "verify", "out/pack.zip").out
    assert "evidence.opened" in ok(here, kept, "audit", "log").out
    scopes = ok(here, kept, "keys", "scopes", "--json").json()["data"]
    assert "packs" in {scope["scope"] for scope in scopes}


def places(data):
    """Everywhere in the header, and some places of the content."""
    start = len(fenc.MAGIC) + 4
    head = start + int.from_bytes(data[len(fenc.MAGIC) : start], "big")
    return [0, 9, start + 3, start + 40, head - 2, head, head + 1000, len(data) // 2, len(data) - 1]


@pytest.mark.parametrize("number", range(9))
def test_one_altered_byte_is_refused(here, mine, number):
    path = mine / "kept.zip.fenc"
    data = bytearray(path.read_bytes())
    data[places(data)[number]] ^= 1
    path.write_bytes(data)
    done = refused(here, mine, "audit.sealed-pack", "evidence", "open", "kept.zip.fenc")
    assert done.code == Exit.UNVERIFIED
    assert not (mine / "evidence.zip").exists()


def cut(data):
    return data[:-1]


def longer(data):
    return data + b"\0"


def empty(_):
    return b""


@pytest.mark.parametrize("change", [cut, longer, empty])
def test_another_length_is_refused(here, mine, change):
    path = mine / "kept.zip.fenc"
    path.write_bytes(change(path.read_bytes()))
    refused(here, mine, "audit.sealed-pack", "evidence", "open", "kept.zip.fenc")


def test_a_sealed_artifact_is_no_pack(here, kept):
    found = next(p for p in (kept / ".falaj/blobs").rglob("*") if p.is_file())
    done = refused(here, kept, "audit.sealed-pack", "evidence", "open", str(found))
    assert "no pack" in done.err


def test_another_workspace_cannot_open_it(here, kept, tmp_path):
    other = write_project(tmp_path / "other", toml=ALL)
    ok(here, other, "run")
    refused(here, other, "audit.sealed-pack", "evidence", "open", str(kept / "kept.zip.fenc"))


def test_who_may_not_export_may_not_open(here, kept):
    refused(here, kept, "access.denied", "--as", "visitor", "evidence", "open", "kept.zip.fenc")


def test_a_sealed_pack_is_not_verified_as_it_lies(here, kept):
    done = refused(here, kept, "audit.still-sealed", "verify", "kept.zip.fenc")
    assert "falaj evidence open" in done.err


def test_after_the_erasure_no_copy_opens(here, mine):
    ok(here, mine, "keys", "erase", "packs", "-m", "kept for five years")
    done = refused(here, mine, "audit.sealed-pack", "evidence", "open", "kept.zip.fenc")
    assert "was erased" in done.err
    words = ("evidence", "export", "flight-delay", "--seal", "-o", "again.fenc")
    ok(here, mine, *words)
    ok(here, mine, "evidence", "open", "again.fenc")


def test_a_workspace_without_keys_seals_nothing_and_says_so(here, workspace, kept):
    words = ("evidence", "export", "flight-delay", "--seal", "-o", "x.fenc")
    refused(here, workspace, "audit.cannot-seal", *words)
    assert not (workspace / "x.fenc").exists()
    told = json.loads(here(workspace, "audit", "log", "--json").out)
    assert "evidence.exported" not in json.dumps(told), "nothing was exported"
    refused(here, workspace, "audit.cannot-seal", "evidence", "open", str(kept / "kept.zip.fenc"))
