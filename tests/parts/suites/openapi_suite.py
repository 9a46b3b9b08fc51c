"""Requests that Schemathesis makes from the server's own description, good ones and bad ones.

Run inside the environment of the part kserve. FALAJ_EXAMPLES: requests an address (default 25).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers import House
from tensors import mirror

from falaj.facts.models import Datatype

EXAMPLES = os.environ.get("FALAJ_EXAMPLES", "25")
# A body may fit its description and still not the model: data that is not of the shape's size.
WORDS_OF_A_SCHEMA_END_HERE = "positive_data_acceptance"
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_schema_conformance,response_headers_conformance,negative_data_rejection,"
    "unsupported_method"
)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("described"))
    one = made.release("1")
    schema, data = mirror(Datatype.INT16, Datatype.BYTES, Datatype.BOOL)
    two = made.release("1", onnx_bytes=data, schema=schema, model="pair", task="other")
    for release in (one, two):
        made.place(release)
    made.write(made.plan(one, more=made.plan(two, model="pair").models.items()))
    yield made.start()
    made.close()


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    made = House(tmp_path_factory.mktemp("one"))
    made.apply(made.release("1"))
    yield made.start()
    made.close()


@pytest.mark.parametrize("which", ["one", "several"])
def test_the_server_does_what_it_says(which, request, tmp_path):
    client = request.getfixturevalue(which)
    done = run(client, tmp_path, CHECKS)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]
    assert "passed" in done.stdout


def test_named_rows_that_fit_their_description_are_answered(one, tmp_path):
    paths = "^(/predict|/invocations|/v1/models/delay:predict)$"
    done = run(one, tmp_path, WORDS_OF_A_SCHEMA_END_HERE, "--include-path-regex", paths)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]


def run(client, folder, checks, *more):
    words = [
        Path(sys.executable).with_name("schemathesis"),
        *("run", f"{client.url}/openapi.json", "--checks", checks, "-n", EXAMPLES),
        *("--seed", "7", "--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all"),
        *more,
    ]
    return subprocess.run(
        words, check=False, cwd=folder, capture_output=True, text=True, timeout=400
    )
