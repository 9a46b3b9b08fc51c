"""Locks pin every file by its hash and name no host."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted(
    [*(ROOT / "requirements").glob("*.txt"), *(ROOT / "bench" / "requirements").glob("*.txt")]
)
PIN = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[^\s;]+)( ; .+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
NOTE = re.compile(
    r"    # +(via|via -c|via -r|-c|-r)?( ?[a-z0-9._/-]+( \(pyproject\.toml(:[a-z]+)?\))?)?"
)


def names(path):
    return {m["name"]: m["version"] for m in map(PIN.fullmatch, path.read_text().splitlines()) if m}


@pytest.mark.parametrize("path", LOCKS, ids=lambda p: f"{p.parent.parent.name}-{p.stem}")
def test_every_line_is_a_pin_a_hash_or_a_note(path):
    lines = path.read_text().splitlines()
    assert lines
    wrong = [line for line in lines if not any(kind.fullmatch(line) for kind in (PIN, HASH, NOTE))]
    assert wrong == []


def test_the_locks_agree():
    dev = names(ROOT / "requirements" / "dev.txt")
    for kind in ("core", "demo"):
        pins = names(ROOT / "requirements" / f"{kind}.txt")
        assert {n: v for n, v in pins.items() if dev.get(n) != v} == {}


def test_the_locks_hold_what_the_project_asks_for():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = {re.match(r"[a-z0-9-]+", word)[0] for word in asked}
    assert wanted <= set(names(ROOT / "requirements" / "core.txt"))


def test_the_core_is_small():
    """Packages that a Linux machine installs; colorama and tzdata are for other systems."""
    pins = set(names(ROOT / "requirements" / "core.txt")) - {"colorama", "tzdata"}
    assert len(pins) <= 40
    assert pins & {"scipy", "polars", "pandas", "scikit-learn"} == set()
