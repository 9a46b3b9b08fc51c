"""What people wrote ends with its key, from the command line; the log verifies as before."""

from __future__ import annotations

import sqlite3

import pytest
from small_project import TOML, write_project

ALL = TOML + '\n[encryption]\nat_rest = "all"\n'


def ok(here, root, *words):
    done = here(root, *words)
    assert done.code == 0, f"{words}\n{done.out}\n{done.err}"
    return done


@pytest.fixture
def sealed(here, tmp_path):
    root = write_project(tmp_path / "sealed", toml=ALL)
    for name in ("zayed", "omar"):
        ok(here, root, "access", "add", name, "--role", "viewer")
        ok(here, root, "keys", "create", name, "--role", "gate")
    ok(here, root, "keys", "revoke", "zayed", "--kind", "retired", "-m", "Zayed has left us")
    return root


def test_remarks_end_with_their_key(here, sealed):
    scopes = ok(here, sealed, "keys", "scopes", "--json").json()["data"]
    assert "remarks" in {scope["scope"] for scope in scopes}
    ok(here, sealed, "keys", "erase", "remarks", "-m", "asked to")
    found = ok(here, sealed, "audit", "verify", "--json").json()["data"]
    assert found["findings"] == []
    ok(here, sealed, "keys", "revoke", "omar", "--kind", "retired", "-m", "another")
    assert ok(here, sealed, "audit", "verify", "--json").json()["data"]["findings"] == []


def test_an_altered_remark_is_a_finding(here, sealed):
    base = sqlite3.connect(sealed / ".falaj" / "store.db")
    with base:
        base.execute("UPDATE remark SET sealed = substr(sealed, 1, length(sealed) - 1)")
    base.close()
    done = here(sealed, "audit", "verify")
    assert done.code == 7
    assert "remark" in done.out + done.err
