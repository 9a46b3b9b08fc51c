"""What `falaj evidence export` puts into a pack of a real project: complete, linked, named in the log."""

from __future__ import annotations

import json
import re
import zipfile

import msgspec
import pytest

from falaj.facts.checks import GateReport
from falaj.facts.testing import TestReport


@pytest.fixture
def tested(here, workspace):
    """1.1.0 is of the code that the project's own tests looked at."""
    (workspace / "tests").mkdir()
    (workspace / "tests" / "test_model.py").write_text("def test_a(trained_model): pass\n")
    for line in (
        ("run", "-p", "slope=1.5"),
        ("test",),
        ("gate",),
        ("release", "create", "--version", "1.1.0"),
        ("evidence", "export", "flight-delay", "-o", "pack.zip"),
    ):
        done = here(workspace, *line)
        assert done.code == 0, f"{line}: {done.err}"
    return workspace


def read(kind, data):
    """Numbers travel as text in what is signed."""
    return msgspec.convert(json.loads(data), kind, strict=False)


def test_reports_of_gates_and_tests_lie_in_it(here, tested):
    with zipfile.ZipFile(tested / "pack.zip") as archive:
        whole = {name: archive.read(name) for name in archive.namelist()}
    gates = [read(GateReport, data) for name, data in whole.items() if name.startswith("gates/")]
    assert len(gates) == 2, "of both releases"
    assert all(gate.results for gate in gates)
    (report,) = [name for name in whole if re.fullmatch(r"tests/[^.]+\.json", name)]
    assert read(TestReport, whole[report]).counts() == {"passed": 1}
    assert b'tests="1"' in whole[report.removesuffix("json") + "junit.xml"]
    for name in ("index.html", "index.ar.html"):
        page = whole[name].decode()
        assert "1.1.0" in page
        links = re.findall(r'href="([^"]+)"', page)
        assert any(link.endswith(".junit.xml") for link in links)
        assert set(links) <= set(whole)
        assert "releases/" in " ".join(links), "the model cards"
    assert here(tested, "verify", "pack.zip", "--trust", "pack.trust.json").code == 0


def test_a_report_that_was_exchanged_is_named(here, tested):
    """The whole way, on the pack that a person gets."""
    with zipfile.ZipFile(tested / "pack.zip") as archive:
        name = next(n for n in archive.namelist() if n.startswith("gates/"))
        data = archive.read(name)
    raw = (tested / "pack.zip").read_bytes()
    (tested / "pack.zip").write_bytes(raw.replace(data, data[:-1] + b" ", 1))
    words = ("verify", "pack.zip", "--trust", "pack.trust.json", "--json")
    found = json.loads(here(tested, *words).out)["data"]["findings"]
    assert name in {finding["file"] for finding in found}
