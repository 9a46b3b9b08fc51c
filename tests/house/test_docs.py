"""The documentation is true: its code runs, its pages are made from the source, nothing is missing."""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from falaj.base.errors import Exit
from falaj.base.settings import settings
from falaj.doors.cli.main import VERBS, cli
from falaj.facts import attestations
from falaj.facts.project import Project
from falaj.facts.trust import KIND as TRUST_KIND
from falaj.rollouts.declare import PLAN_TYPE

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text()
TYPE = re.compile(r"[a-z]+(?:-[a-z]+)*\.[a-z-]+")
FAMILY = re.compile(r"[a-z]+\.[a-z-]*")
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


def test_the_made_pages_are_what_the_source_says():
    code = (
        "import json, runpy\n"
        "made = runpy.run_path('docs/make_reference.py')\n"
        "print(json.dumps({name: page() for name, page in made['PAGES'].items()} | "
        "{'README': made['readme'](open('README.md').read())}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    made = json.loads(done.stdout)
    assert made.pop("README") == README, "help or numbers: run python docs/make_reference.py"
    for name, text in made.items():
        there = (DOCS / "reference" / name).read_text()
        assert there == text, f"{name}: run python docs/make_reference.py"


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


def test_the_documentation_builds_without_a_warning_and_asks_nobody_else(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", "-d", tmp_path / "trees"]
    out = tmp_path / "out"
    done = subprocess.run([*command, DOCS, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    asked = re.compile(
        r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?(?:https?:)?//[^\"'\s>]+"
        r"|<link[^>]*\shref=[\"']?(?:https?:)?//[^\"'\s>]+"
        r"|@import[^;]*//[^;]+|url\([\"']?(?:https?:)?//[^)]+",
        re.IGNORECASE,
    )
    built = [*out.rglob("*.html"), *out.rglob("*.css")]
    assert len(built) > len(list(DOCS.rglob("*.md")))
    assert [(p.name, found) for p in built for found in asked.findall(p.read_text())] == []


# --- nothing is missing ---


def test_every_event_type_stands_in_the_docs():
    """Types are written at their place in the source; those that end in a state come as a family."""
    made = runpy.run_path(str(DOCS / "make_reference.py"))
    known, families = made["happenings"](), made["FAMILIES"]
    whole, begun = event_types()
    assert whole - set(known) == set()
    assert begun - set(families) == set()
    dead = {name for name in made["HAPPENINGS"] if name not in whole}
    assert dead == set(), "no longer written"


def event_types():
    """Whole types, and beginnings of those that are put together at run time."""
    whole, begun = set(), set()
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name not in ("event", "_event", "event_of", "Event"):
                continue
            for word in [*node.args, *(k.value for k in node.keywords if k.arg == "type")]:
                if isinstance(word, ast.Constant) and TYPE.fullmatch(str(word.value)):
                    whole.add(word.value)
                elif isinstance(word, ast.JoinedStr) and isinstance(word.values[0], ast.Constant):
                    begin = word.values[0].value
                    if FAMILY.fullmatch(begin):
                        begun.add(begin)
    return whole, begun


def test_every_statement_and_signed_kind_stands_in_the_docs():
    page = (DOCS / "reference" / "attestations.md").read_text()
    kinds = [value for name, value in vars(attestations).items() if name.isupper()]
    assert [kind for kind in [*kinds, TRUST_KIND, PLAN_TYPE] if f"`{kind}`" not in page] == []


def test_every_port_stands_in_the_docs():
    page = (DOCS / "reference" / "data-plane.md").read_text()
    ports = {
        option.default
        for _, command in commands()
        for option in command.params
        if option.name == "port"
    }
    assert len(ports) >= 2
    assert [port for port in ports if f"| {port} |" not in page] == []


def test_every_address_of_the_data_plane_stands_in_the_docs():
    page = (DOCS / "reference" / "data-plane.md").read_text()
    tree = ast.parse((ROOT / "src/falaj/doors/predict/routes.py").read_text())
    found = set()
    routes = next(n for n in ast.walk(tree) if getattr(n, "name", "") == "find")
    for node in ast.walk(routes):
        if isinstance(node, ast.MatchSequence):
            parts = [
                part.value.value if isinstance(part, ast.MatchValue) else f"<{part.name}>"
                for part in node.patterns
            ]
            found.add("/" + "/".join(parts).rstrip("/"))
    assert len(found) > 10
    assert [
        path for path in found if not re.search(rf"(?:GET|POST) {path}(?:\?[a-z]+=)?`", page)
    ] == []


def test_every_variable_of_the_environment_stands_in_the_docs():
    page = (DOCS / "reference" / "commands.md").read_text()
    names = {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in re.findall(r"\bFALAJ_[A-Z_]+\b", path.read_text())
    }
    assert [name for name in names if f"`{name}" not in page] == []


# --- what the pages tell people to type ---


def commands():
    """Every command with its words."""
    for name in VERBS:
        verb = cli.get_command(click.Context(cli), name)
        if isinstance(verb, click.Group):
            yield from (([name, below], command) for below, command in verb.commands.items())
        if not isinstance(verb, click.Group) or verb.invoke_without_command:
            yield [name], verb


def typed(page):
    """Words of each `falaj` command: in blocks, and as `falaj ...` inside the text."""
    text = page.read_text()
    lines = re.findall(
        r"`(falaj [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    )
    for block in re.findall(r"^```(?:sh|console|text)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        lines += [line for line in block.splitlines() if re.match(r"\s*(?:\$ )?falaj ", line)]
    for line in lines:
        if "..." in line or " [" in line or line.strip().endswith("--help"):
            continue
        yield from (words for words in simple(line) if words[0] == "falaj")


def simple(line):
    """The simple commands of a shell line, without what is redirected."""
    lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = []
    tokens = iter(lexer)
    for token in tokens:
        if token == ">":
            next(tokens)
        elif set(token) <= set("&|;()"):
            if words:
                yield words
            words = []
        else:
            words.append(token)
    if words:
        yield words


def test_everything_that_a_page_tells_to_type_exists():
    found = {tuple(words): command for words, command in commands()}
    pages = [*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "examples" / "flights" / "README.md"]
    for page in pages:
        if page.name == "errors.md":
            continue
        for line in typed(page):
            words = line[1:]
            at = f"{page.relative_to(ROOT)}: {shlex.join(line)}"
            if words[:1] == ["--as"]:
                words = words[2:]
            assert words and words[0] in VERBS, at
            command = found.get(tuple(words[:2])) or found.get(tuple(words[:1]))
            if command is None:
                assert words[1:] in ([], ["--help"]), at  # a group's own name
                continue
            rest = words[2:] if tuple(words[:2]) in found else words[1:]
            context = click.Context(command, info_name="falaj")
            if "--help" not in rest:
                try:
                    command.make_parser(context).parse_args(rest)
                except click.UsageError as error:
                    raise AssertionError(f"{at}: {error.message}") from None


def test_the_readme_shows_the_help_as_it_is():
    done = subprocess.run(
        [sys.executable, "-m", "falaj", "--help"],
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.replace("python -m falaj", "falaj").strip() in README


def test_the_readme_shows_what_its_lines_print():
    (code,) = FENCE.findall(README)
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    after = README[README.index(code) :]
    shown = re.search(r"^```text\n(.*?)^```", after, re.MULTILINE | re.DOTALL)
    assert shown[1] == said
    assert "rollback: worse" in said.splitlines()[-1]


def test_the_readme_tells_the_demos_own_story():
    """The excerpt is made by a run; its chapters and its commands are those that there are."""
    excerpt = re.search(r"<!-- demo: .*?```text\n(.*?)```", README, re.DOTALL)[1]
    story = (ROOT / "src/falaj/doors/cli/demo/story.py").read_text()
    chapters = {
        node.args[1].value
        for node in ast.walk(ast.parse(story))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "stage"
    }
    told = re.findall(r"^\[ *[0-9.]+ s\] (.*)$", excerpt, re.MULTILINE)
    assert len(told) >= 6
    assert [head for head in told if head not in chapters] == []
    for line in re.findall(r"^  \$ falaj (.*)$", excerpt, re.MULTILINE):
        words = line.split()
        assert (words[2] if words[0] == "--as" else words[0]) in VERBS
    assert "rolled-back: worse" in excerpt
    assert "everything holds" in excerpt


def test_what_the_readme_points_at_is_there():
    for path in re.findall(r"`((?:tests|bench|docs|src)/[^`\s]+)`", README):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"make bench NAME=([a-z]+)", README.replace("\n  ", " ")):
        assert (ROOT / "bench" / "results" / f"{name}.md").exists(), name


def test_notes_of_changes_have_a_kind_and_say_something():
    for note in (ROOT / "changes").glob("*.md"):
        if note.name != "README.md":
            assert re.fullmatch(r"[a-z0-9-]+\.(feature|fix|break|security|docs)\.md", note.name), (
                note.name
            )
            assert len(note.read_text().strip()) > 20, note.name
