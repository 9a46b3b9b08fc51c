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
