"""Bills of material against the schema of CycloneDX 1.6. Run inside the environment of the part scan."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from falaj.base import canonical
from falaj.links.cyclonedx.schema import trouble

BILLS = sorted(Path(os.environ["FALAJ_BILLS"]).glob("*.json"))
VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)


@pytest.mark.parametrize("path", BILLS, ids=lambda path: path.stem)
def test_it_holds(path):
    found = VALIDATOR.validate_str(path.read_text())
    assert found is None, found
    assert trouble(path.read_bytes()) == ()


def test_there_are_bills():
    assert len(BILLS) >= 3


BREAKS = {
    "a key that is not known": lambda bill: bill.update(colour="red"),
    "a type that is none": lambda bill: bill["components"][0].update(type="thing"),
    "a hash that is none": lambda bill: bill["components"][0].update(
        hashes=[{"alg": "SHA-256", "content": "xyz"}]
    ),
    "a metric that is no text": lambda bill: bill["metadata"]["component"]["modelCard"][
        "quantitativeAnalysis"
    ].update(performanceMetrics=[{"value": 0.5}]),
    "a serial number that is none": lambda bill: bill.update(serialNumber="7"),
}


@pytest.mark.parametrize("change", BREAKS.values(), ids=BREAKS)
def test_what_breaks_the_schema_is_refused(change):
    bill = json.loads(BILLS[0].read_text())
    change(bill)
    (words,) = trouble(json.dumps(bill).encode())
    assert words


def test_the_check_says_what():
    bill = json.loads(BILLS[0].read_text())
    bill["specVersion"] = 6
    assert "6 is not of type 'string'" in trouble(canonical.dumps(bill))[0]
