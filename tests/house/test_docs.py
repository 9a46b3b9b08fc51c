"""The documentation is true: its code runs, its pages are made from the source, nothing is missing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from falaj.base.errors import Exit
from falaj.base.settings import settings
from falaj.facts.project import Project

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [
    p for p in [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"] if FENCE.search(p.read_text())
]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_python_blocks_run(page):
    """The blocks of one page share a namespace and run in order, in a fresh interpreter."""
    text = page.read_text()
    code = ""
    for block in FENCE.finditer(text):
        line = text.count("\n", 0, block.start(1))
        code += "\n" * (line - code.count("\n")) + block[1]  # so that a traceback names the line
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; exec(compile(sys.stdin.read(), {page.name!r}, 'exec'), {{}})",
        ],
        input=code,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def made_page():
    code = "import runpy; print(runpy.run_path('docs/make_reference.py')['page'](), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_the_reference_of_the_project_file_is_made_from_the_source():
    page = (DOCS / "reference" / "falaj-toml.md").read_text()
    assert page == made_page(), "run: python docs/make_reference.py"


def test_every_setting_says_what_it_is():
    for setting in settings(Project):
        assert setting.about.endswith("."), setting.path
        assert setting.kind


def test_every_exit_code_stands_in_the_docs():
    page = (DOCS / "reference" / "exit-codes.md").read_text()
    codes = {value for name, value in vars(Exit).items() if name.isupper()}
    assert {int(number) for number in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == codes


def test_links_inside_the_documentation_lead_somewhere():
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
            if not target.startswith("https://"):
                assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_every_page_is_reached():
    known = {(DOCS / "index.md").resolve()}
    for page in DOCS.rglob("*.md"):
        for toc in re.findall(r"```\{toctree\}\n(.*?)```", page.read_text(), re.DOTALL):
            entries = [line.strip() for line in toc.splitlines() if line.strip() and line[0] != ":"]
            known |= {(page.parent / f"{entry}.md").resolve() for entry in entries}
    assert {p.resolve() for p in DOCS.rglob("*.md")} - known == set()


def test_decisions_have_their_parts():
    for page in sorted((DOCS / "adr").glob("0*.md")):
        heads = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
        assert heads == ["Context", "Choices", "Decision", "Price"], page.name


def test_the_documentation_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "dummy", "-d", tmp_path / "trees"]
    done = subprocess.run(
        [*command, DOCS, tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
