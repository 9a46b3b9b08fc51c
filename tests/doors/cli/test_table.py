"""The table of verbs, their help, and every command that a text tells people to type."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import click
import pytest
from commands import examples, find, leaves, words

from falaj.doors.cli.main import VERBS, cli

SRC = Path(__file__).parents[3] / "src" / "falaj"


def first_line(command):
    return (command.help or "").partition("\n")[0]


@pytest.mark.parametrize("verb", VERBS)
def test_the_table_says_what_the_command_says(verb):
    module = import_module(f"falaj.doors.cli.verbs.{verb.replace('-', '_')}")
    assert first_line(module.command) == VERBS[verb][1]
    assert module.command.name in (verb, "command")


def test_every_file_of_a_verb_is_in_the_table():
    files = {p.stem.replace("_", "-") for p in (SRC / "doors/cli/verbs").glob("[a-z]*.py")}
    assert files == set(VERBS)


@pytest.mark.parametrize(
    ("path", "command"), leaves(), ids=lambda x: "-".join(x) if isinstance(x, tuple) else ""
)
def test_every_command_shows_two_examples_of_itself(path, command):
    assert first_line(command), path
    assert first_line(command).endswith("."), path
    found = examples(command)
    assert len(found) >= 2, path
    assert any(
        find(words(line))[0] is command or find(words(line))[0].name == command.name
        for line in found
    )
    assert all(len(line) <= 78 for line in found), "a line of help is not broken"


def test_every_option_is_explained():
    """A flag whose name says it all may go without; what wants a value may not."""
    plain = {"--json", "--template", "--environment", "-o", "--output", "--trust"}
    silent = [
        (path, option.opts)
        for path, command in leaves()
        for option in command.params
        if isinstance(option, click.Option) and not option.help and not plain & set(option.opts)
    ]
    assert silent == []


def test_help_names_every_verb_under_its_section(here, tmp_path):
    found = here(tmp_path, "--help")
    assert found.code == 0
    for verb, (section, line) in VERBS.items():
        assert re.search(rf"^{section}:$", found.out, re.MULTILINE)
        assert re.search(rf"^  {verb}\s+{re.escape(line)}$", found.out, re.MULTILINE), verb
    assert here(tmp_path).out == found.out, "without a word the same"


def test_every_help_page_opens(here, tmp_path):
    for path, _ in leaves():
        found = here(tmp_path, *path, "--help")
        assert found.code == 0, path
        assert "Examples:" in found.out


def test_the_version_is_the_installed_one(here, tmp_path):
    from importlib.metadata import version

    assert here(tmp_path, "--version").out == f"falaj {version('falaj')}\n"


UNKNOWN = {
    "statsu": "status",
    "rollot": "rollout",
    "who-was-liv": "who-was-live",
    "aprove": "approve",
    "veryfy": "verify",
}


@pytest.mark.parametrize(("typed", "meant"), UNKNOWN.items())
def test_an_unknown_verb_offers_the_nearest(here, tmp_path, typed, meant):
    found = here(tmp_path, typed)
    assert found.code == 2
    assert meant in found.err
    assert found.out == ""


def test_a_verb_that_is_like_none_points_to_the_help(here, tmp_path):
    found = here(tmp_path, "qqqqqq")
    assert found.code == 2
    assert "falaj --help" in found.err


def test_completion_offers_verbs_without_opening_one():
    from click.shell_completion import ShellComplete

    done = ShellComplete(cli, {}, "falaj", "_FALAJ_COMPLETE")
    assert [c.value for c in done.get_completions([], "ro")] == ["rollout", "rollback"]
    assert [c.help for c in done.get_completions([], "sta")] == [VERBS["status"][1]]
    assert len(done.get_completions([], "")) == len(VERBS)


def told():
    """`falaj ...` between backticks or as the whole fix, in the explanations of codes and in the source's own words."""
    for path in [SRC / "doors/cli/errors.md", *sorted(SRC.rglob("*.py"))]:
        text = re.sub(r'"\s*\n\s*f?"', "", path.read_text())  # one text over several lines
        for line in re.findall(
            r"""(?:`|fix=f?")falaj ([^`"]*)[`"]""", re.sub(r"\{[^{}]*\}", "X", text)
        ):
            yield path.relative_to(SRC).as_posix(), line.strip()


def test_what_people_are_told_to_type_can_be_typed():
    wrong = []
    for at, line in told():
        typed = line.replace("...", "x").split()
        if not typed or typed[0].isupper():  # `falaj VERB --help`
            continue
        command, left = find(typed)
        known = {opt for p in command.params for opt in (*p.opts, *p.secondary_opts)} | {"--help"}
        options = [word for word in left if re.fullmatch(r"--?[a-z][a-z-]*", word)]
        if isinstance(command, click.Group) and command is not cli and left:
            wrong.append((at, line, "no such command"))
        if command is cli and not typed[0].startswith("--"):
            wrong.append((at, line, "no such verb"))
        wrong += [(at, line, option) for option in options if option not in known]
    assert wrong == []
