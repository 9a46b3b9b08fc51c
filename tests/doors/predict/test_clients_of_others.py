"""Clients that others wrote, each set in an environment of its own."""

from __future__ import annotations

import pytest

import parts


@pytest.mark.parametrize(
    ("part", "suite"),
    [("clients", "clients"), ("clients", "mlserver"), ("kserve", "kserve"), ("kserve", "openapi")],
    ids=["triton, grpcio", "mlserver", "kserve", "schemathesis"],
)
def test_clients_of_others_work_unchanged(part, suite):
    parts.suite(
        part, f"tests/parts/suites/{suite}_suite.py", *("-p", "no:xdist", "-p", "no:schemathesis")
    )
