"""`[gates] checks = [...]`: the project's own checks stand in the report like all others."""

from __future__ import annotations

import json

import loans
import walks

from falaj.base.errors import Exit

CHECKS = """
import falaj


@falaj.check
def income_counts(score, rows):
    return bool(score(rows.with_columns(income=rows["income"] + 1)).mean() > score(rows).mean())


@falaj.check(at_most=0.6)
def not_too_many(score, rows):
    return float((score(rows) > 0.5).mean()) + WRONG
"""


def test_own_checks_are_part_of_the_gate(tmp_path):
    toml = loans.TOML.replace(
        "[gates.quality]",
        '[gates]\nchecks = ["own:income_counts", "own:not_too_many"]\n\n[gates.quality]',
    ).replace('"security"]', '"security", "checks"]')
    root = loans.write_project(tmp_path / "loans", toml=toml)
    (root / "own.py").write_text(CHECKS.replace(" + WRONG", ""))
    assert walks.falaj(root, "run")[0] == 0
    code, out, err = walks.falaj(root, "gate", "--json")
    assert code == 0, err
    told = {one["check"]: one for one in json.loads(out)["data"]["results"]}
    assert told["checks.income_counts"]["verdict"] == "pass"
    assert 0.4 < told["checks.not_too_many"]["value"] < 0.6
    (root / "own.py").write_text(CHECKS)
    code, out, _ = walks.falaj(root, "gate", "--json")
    assert code == Exit.INTERNAL
    told = {one["check"]: one for one in json.loads(out)["data"]["results"]}
    assert "name 'WRONG' is not defined (own.py:12)" in told["checks.not_too_many"]["reason"]
    assert told["checks.income_counts"]["verdict"] == "pass"


COUNTED = """
import pathlib

import falaj

HERE = pathlib.Path(__file__).parent


def count(name):
    with (HERE / f"{name}.calls").open("a") as file:
        file.write("x")


@falaj.check
def kept(score, rows):
    count("kept")
    return True


@falaj.check(at_least=LIMIT, cache=False)
def anew(score, rows):
    count("anew")
    return 0.5


@falaj.check
def wrong(score, rows):
    count("wrong")
    return True if (HERE / "well").exists() else None
"""


def test_own_checks_are_kept_until_what_they_depend_on_changes(tmp_path):
    toml = loans.TOML.replace(
        "[gates.quality]",
        '[gates]\nchecks = ["own:kept", "own:anew", "own:wrong"]\n\n[gates.quality]',
    ).replace('"security"]', '"security", "checks"]')
    root = loans.write_project(tmp_path / "loans", toml=toml)
    (root / "own.py").write_text(COUNTED.replace("LIMIT", "0.4"))
    assert walks.falaj(root, "run")[0] == 0

    def calls():
        out = walks.falaj(root, "gate", "--json")[1]
        found = [one for one in json.loads(out)["data"]["results"] if one["gate"] == "checks"]
        files = [root / f"{name}.calls" for name in ("kept", "anew", "wrong")]
        return [len(f.read_text()) for f in files], [one["verdict"] for one in found]

    assert calls() == ([1, 1, 1], ["pass", "pass", "error"])
    assert calls() == ([1, 2, 2], ["pass", "pass", "error"]), "an error is made anew"
    (root / "well").touch()
    assert calls() == ([1, 3, 3], ["pass", "pass", "pass"])
    assert calls() == ([1, 4, 3], ["pass", "pass", "pass"])
    (root / "own.py").write_text(COUNTED.replace("LIMIT", "0.6"))
    assert calls() == ([2, 5, 4], ["pass", "fail", "pass"]), "other code"
    assert walks.falaj(root, "run", "-p", "swapped=true")[0] == 0
    assert calls() == ([3, 6, 5], ["pass", "fail", "pass"]), "another model"
