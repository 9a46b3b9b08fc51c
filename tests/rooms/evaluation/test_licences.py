"""Which licence a package declares, and whether an expression is allowed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from falaj.base.locks import read_lock
from falaj.evaluation.licences import allowed, check_licences, licence_of, licences_of
from falaj.facts.checks import Verdict
from falaj.facts.project import DependenciesTable, IgnoreTable
from falaj.facts.scans import Declared
from falaj.links.python.licences import read_licences

NOW = datetime(2026, 3, 2, tzinfo=UTC)
OSI = "License :: OSI Approved :: "


def said(expression="", text="", classifiers=(), version="1.0"):
    return Declared(
        package="p", version=version, expression=expression, text=text, classifiers=classifiers
    )


DECLARED = {  # metadata -> (expression, part of why)
    "an expression": (said("MIT"), ("MIT", "")),
    "an expression in another spelling": (said("mit or apache-2.0"), ("MIT OR Apache-2.0", "")),
    "an expression goes first": (said("MIT", "GPL", (f"{OSI}BSD License",)), ("MIT", "")),
    "the old field": (said(text="BSD-3-Clause"), ("BSD-3-Clause", "")),
    "the old field in words": (said(text="Apache 2.0"), ("Apache-2.0", "")),
    "a classifier": (said(classifiers=(f"{OSI}MIT License",)), ("MIT", "")),
    "a classifier that names a family": (said(classifiers=(f"{OSI}BSD License",)), ("BSD-unspecified", "")),
    "several classifiers": (
        said(classifiers=(f"{OSI}MIT License", f"{OSI}BSD License")), ("BSD-unspecified AND MIT", ""),
    ),
    "an expression that is none": (said("as free as air"), ("", "says nothing")),
    "a text that is none": (said(text="see LICENSE"), ("", "'see LICENSE'")),
    "the whole text of a licence": (said(text="Permission is hereby granted " * 9), ("", "nothing")),
    "proprietary": (
        said(classifiers=("License :: Other/Proprietary License",)), ("", "Other/Proprietary License"),
    ),
    "nothing": (said(), ("", "says nothing")),
    "another version is installed": (said("MIT", version="2.0"), ("", "another version")),
    "not installed": (None, ("", "not installed")),
}  # fmt: skip


@pytest.mark.parametrize(("declared", "wanted"), DECLARED.values(), ids=DECLARED)
def test_licence_of(declared, wanted):
    found = licence_of("p", "1.0", declared)
    assert found.expression == wanted[0]
    assert wanted[1] in found.why
    assert bool(found.why) is not bool(found.expression)


EXPRESSIONS = {  # expression, allowed, denied -> may be kept
    "no rule": ("GPL-3.0-only", (), (), True),
    "on the list": ("MIT", ("MIT",), (), True),
    "not on the list": ("GPL-3.0-only", ("MIT",), (), False),
    "by a pattern": ("BSD-3-Clause", ("BSD-*",), (), True),
    "denied": ("AGPL-3.0-only", (), ("AGPL-*",), False),
    "denied goes first": ("AGPL-3.0-only", ("*",), ("AGPL-*",), False),
    "one of two is enough": ("GPL-3.0-only OR MIT", ("MIT",), (), True),
    "both are needed": ("GPL-3.0-only AND MIT", ("MIT",), (), False),
    "in brackets": ("MIT AND (GPL-3.0-only OR BSD-2-Clause)", ("MIT", "BSD-*"), (), True),
    "and binds stronger": ("MIT OR GPL-3.0-only AND GPL-2.0-only", ("MIT",), (), True),
    "a denied side is not chosen": ("GPL-3.0-only OR MIT", (), ("GPL-*",), True),
    "an exception that is named": (
        "GPL-2.0-only WITH Classpath-exception-2.0",
        ("GPL-2.0-only WITH Classpath-exception-2.0",), ("GPL-*",), True,
    ),
    "an exception that is not": ("GPL-2.0-only WITH Classpath-exception-2.0", (), ("GPL-*",), False),
    "a family is not its member": ("BSD-unspecified", ("BSD-3-Clause",), (), False),
    "a family by its pattern": ("BSD-unspecified", ("BSD-*",), (), True),
}  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "permit", "deny", "wanted"), EXPRESSIONS.values(), ids=EXPRESSIONS
)
def test_allowed(expression, permit, deny, wanted):
    assert allowed(expression, permit, deny) is wanted


LOCK = read_lock(b"a==1.0\nb==1.0\nc==1.0\n")
FOUND = licences_of(LOCK, {"a": said("MIT"), "b": said("GPL-3.0-only")})


def checked(**rules):
    found = check_licences(FOUND, DependenciesTable(**rules), lock_digest="d", now=NOW)
    return {r.check: (r.verdict, r.reason) for r in found}


def test_the_gate_names_what_is_not_allowed_and_what_is_not_known():
    found = checked(licences_allowed=("MIT",))
    assert found["dependencies.licence.b"] == (Verdict.FAIL, "b 1.0 is under GPL-3.0-only")
    verdict, why = found["dependencies.licence.c"]
    assert (verdict, "it is not installed here" in why) == (Verdict.INCONCLUSIVE, True)
    assert len(found) == 2


def test_a_list_of_what_is_denied_asks_for_the_unknown_too():
    assert checked(licences_denied=("AGPL-*",)).keys() == {"dependencies.licence.c"}


def test_without_a_rule_nothing_is_judged():
    assert checked() == {}


def test_an_ignored_package_is_in_doubt_until_its_day():
    entry = IgnoreTable(id="b", reason="a tool of development", until="2026-06-01")
    rules = {"licences_denied": ("GPL-*",)}
    assert checked(**rules, ignore=(entry,))["dependencies.licence.b"][0] is Verdict.INCONCLUSIVE
    late = IgnoreTable(id="b", reason="a tool of development", until="2026-03-01")
    assert checked(**rules, ignore=(late,))["dependencies.licence.b"][0] is Verdict.FAIL


def test_installed_packages_are_read_without_importing_them(tmp_path):
    folder = tmp_path / "My_Package-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: My.Package\nVersion: 1.0\nLicense-Expression: MIT\n"
        f"Classifier: {OSI}MIT License\nClassifier: Topic :: Software Development\n"
    )
    (tmp_path / "my_package.py").write_text("raise SystemExit('it was imported')")
    found = read_licences(["my-package", "other"], [str(tmp_path)])
    assert found == {
        "my-package": Declared(
            package="my-package",
            version="1.0",
            expression="MIT",
            classifiers=(f"{OSI}MIT License",),
        )
    }


def test_what_is_installed_here_is_known():
    found = read_licences(["numpy", "msgspec"])
    assert licence_of("msgspec", found["msgspec"].version, found["msgspec"]).expression
