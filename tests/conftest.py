"""Parts that tests of several floors share lie in tests/parts and are found by their plain name."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "parts"))

import parts  # noqa: E402 it lies where the line before has just put it


def pytest_addoption(parser):
    parser.addoption(
        "--parts",
        default="auto",
        help="auto: tests of an outside system that is absent are skipped and listed; "
        "required: they fail; NAME,NAME: those of these systems fail",
    )


def pytest_configure(config):
    parts.ASKED |= set(config.getoption("--parts").split(",")) - {"auto", ""}


def pytest_collection_modifyitems(config, items):
    """Tests of another environment are that environment's; the suite there is counted here as one."""
    away = [i for i in items if i.get_closest_marker("apart") and not i.module.APART]
    if away:
        config.hook.pytest_deselected(items=away)
        items[:] = [item for item in items if item not in away]


def pytest_terminal_summary(terminalreporter):
    parts.report(terminalreporter, HERE.parent / "build")
