"""ports/tester.py by pytest, as a child process with the plugin `falaj.testing`."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec

from falaj.base.errors import FalajError
from falaj.facts.testing import TestOutcome
from falaj.ports.tester import Tested

__all__ = ["PytestRunner"]

PLUGIN: Final = "falaj.testing"
LONGEST_S: Final = 3600.0
LINES: Final = 20
WIDTH: Final = 300
NOT_BEGUN: Final = 4  # pytest's word for a broken conftest or wrong arguments
LOG: Final = 1 << 20


class Written(msgspec.Struct, forbid_unknown_fields=True):
    """What the plugin writes down at the end of a session."""

    tests: tuple[TestOutcome, ...]
    seconds: float
    models: tuple[str, ...]
    version: str


class PytestRunner:
    """python: the project's interpreter; this one when left out."""

    def __init__(
        self, python: Sequence[str] = (sys.executable,), *, longest_s: float = LONGEST_S
    ) -> None:
        self._python = tuple(python)
        self._longest_s = longest_s

    def run(
        self, root: Path, *, paths: tuple[str, ...], keyword: str, run: str, show_values: bool
    ) -> Tested:
        for path in paths:
            if path.startswith("-") or not (root / path.partition("::")[0]).exists():
                raise FalajError(
                    "testing.no-such-path",
                    f"there is no {path!r} in {root}",
                    fix="name files or folders of tests, relative to falaj.toml",
                )
        with TemporaryDirectory(prefix="falaj-tests-") as scratch:
            file = Path(scratch, "report.json")
            words = [
                *(*self._python, "-m", "pytest", "-q", "--color=no", "-p", PLUGIN),
                *("-p", "no:cacheprovider", "--rootdir", str(root), f"--falaj-report={file}"),
                *(() if configured(root) else ("-c", os.devnull)),
                *(() if show_values else ("--falaj-hide-values",)),
                *((f"--falaj-run={run}",) if run else ()),
                *(("-k", keyword) if keyword else ()),
                *(paths or (str(root),)),
            ]
            done = self._done(words, root)
            written = file.read_bytes() if file.exists() else b""
        said = (done.stdout + done.stderr).decode(errors="replace")
        if b"No module named pytest" in done.stderr:
            raise FalajError(
                "testing.pytest-missing",
                "pytest is not installed where this project's code runs",
                why=f"the tests are run by {self._python[0]}",
                fix="pip install 'falaj[test]'",
            )
        if written and done.returncode != NOT_BEGUN:
            found = msgspec.json.decode(written, type=Written)
            return Tested(
                tests=found.tests,
                seconds=found.seconds,
                models=found.models,
                log=said.encode()[-LOG:],
                version=found.version,
            )
        if done.returncode == NOT_BEGUN:
            return Tested(error=told(said), log=said.encode()[-LOG:])
        raise FalajError(
            "testing.broken-off",
            f"the process of the tests ended with {done.returncode} and without an answer",
            why=told(said),
            fix="run the last test alone: falaj test tests/test_....py",
        )

    def _done(self, words: Sequence[str], root: Path) -> subprocess.CompletedProcess[bytes]:
        environment = {
            **{k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"},
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_COLOR": "1",
            "PYTHONIOENCODING": "utf-8",
        }
        try:
            return subprocess.run(
                words,
                cwd=root,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=self._longest_s,
            )
        except subprocess.TimeoutExpired:
            raise FalajError(
                "testing.too-long",
                f"the tests took more than {self._longest_s:g} s and were ended",
                fix="test on a smaller sample of the data",
            ) from None


def configured(root: Path) -> bool:
    """Whether the project itself says how pytest works; a folder above it is not asked."""
    if any((root / name).is_file() for name in ("pytest.ini", ".pytest.ini", "pytest.toml")):
        return True
    try:
        tool = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("tool", {})
    except (OSError, ValueError):
        return False
    return "pytest" in tool


def told(said: str) -> str:
    """The last lines that say something, at most 20."""
    lines = [line.rstrip()[:WIDTH] for line in said.splitlines() if line.strip()]
    return "\n".join(lines[-LINES:])
