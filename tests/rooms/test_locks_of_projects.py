"""What a lock pins; what it asks for without a version is named, and never with its address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.base.locks import read_lock

CASES = {  # lock -> (pins, unread)
    "pins with hashes": (
        "Flask==1.0 \\\n    --hash=sha256:" + "b" * 64 + " \\\n    --hash=sha256:" + "a" * 64 + "\n",
        [("flask", "1.0", 2, 1)], [],
    ),
    "spaces, extras, markers, comments": (
        "a[x,y] == 1.0 ; python_version > '3'  # why\n# b==1\nc===2.0\n",
        [("a", "1.0", 0, 1), ("c", "2.0", 0, 3)], [],
    ),
    "two versions by markers": (
        "a==1 ; python_version < '3.12'\na==2 ; python_version >= '3.12'\n",
        [("a", "1", 0, 1), ("a", "2", 0, 2)], [],
    ),
    "the project itself": ("-e .\n--editable ./\n.\na==1\n", [("a", "1", 0, 4)], []),
    "switches": ("--index-url=https://user:secret@host/x\n--no-binary :all:\na==1", [("a", "1", 0, 3)], []),
    "an open range": ("a>=1\na~=2\nb\n", [], ["a, without one version", "b, without one version"]),
    "a family of versions": ("a==1.*\n", [], ["a, without one version"]),
    "two bounds": ("a==1.0,!=1.0.1\n", [], ["a, without one version"]),
    "an address": (
        "a @ https://user:secret@host/a.whl\ngit+https://token@host/b.git\n",
        [], ["a, from an address", "an address without a name"],
    ),
    "another file": ("-r base.txt\n-c limits.txt\n", [], ["another file of requirements"]),
    "another folder": ("-e ../other\n", [], ["a folder that is installed as it is (editable)"]),
    "nothing": ("", [], []),
    "a line that goes on behind the end": ("a==1 \\", [("a", "1", 0, 1)], []),
}  # fmt: skip


@pytest.mark.parametrize(("text", "pins", "unread"), CASES.values(), ids=CASES)
def test_requirements(text, pins, unread):
    found = read_lock(text.encode())
    assert [(p.name, p.version, len(p.hashes), p.line) for p in found.pins] == pins
    assert list(found.unread) == unread
    assert "secret" not in repr(found)


UV = """
version = 1
requires-python = ">=3.11"

[[package]]
name = "mine"
version = "0.1.0"
source = { editable = "." }

[[package]]
name = "numpy"
version = "2.1.0"
source = { registry = "https://example.org/simple" }
sdist = { url = "https://example.org/n.tar.gz", hash = "sha256:HASH-A", size = 1 }
wheels = [{ url = "https://example.org/n.whl", hash = "sha256:HASH-B", size = 1 }]

[[package]]
name = "odd"
source = { git = "https://token@example.org/odd" }
""".replace("HASH-A", "a" * 64).replace("HASH-B", "b" * 64)


def test_a_lock_of_uv():
    found = read_lock(UV.encode())
    (numpy,) = found.pins
    assert (numpy.name, numpy.version, numpy.hashes) == ("numpy", "2.1.0", ("a" * 64, "b" * 64))
    assert UV.splitlines()[numpy.line - 1] == 'name = "numpy"'
    assert found.unread == ("odd, without one version",)
    assert "token" not in repr(found)


def test_a_broken_lock_of_uv_is_told():
    assert read_lock(UV.replace("version = 1", "version = ").encode()).unread == (
        "the whole lock: it is no TOML",
    )


@given(st.binary(max_size=200))
def test_no_lock_is_so_broken_that_it_raises(text):
    read_lock(text)
    read_lock(b"[[package]]\n" + text)
