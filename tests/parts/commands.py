"""The command line as a tree: its leaves, and the examples that their help shows."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import click

from falaj.doors.cli.main import cli

__all__ = ["examples", "find", "leaves", "words"]


def leaves(
    command: click.Command = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with the words that lead to it."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    if command.invoke_without_command and path:
        yield path, command
    ctx = click.Context(command)
    for name in command.list_commands(ctx):
        inner = command.get_command(ctx, name)
        assert inner is not None
        yield from leaves(inner, (*path, name))


def examples(command: click.Command) -> list[str]:
    _, _, shown = (command.help or "").partition("Examples:\n")
    lines = [line.strip() for line in shown.split("\n\n")[0].splitlines()]
    return [line for line in lines if line]


def words(line: str) -> list[str]:
    """What stands behind `falaj`, without a redirection."""
    first, *rest = shlex.split(line)
    assert first == "falaj", line
    return rest[: rest.index(">")] if ">" in rest else rest


def find(given: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words lead to, and the words that are left for it."""
    left = list(given)
    while left and left[0].startswith("-"):
        left = left[2:] if left[0] == "--as" else left[1:]
    command: click.Command = cli
    while isinstance(command, click.Group) and left:
        inner = command.get_command(click.Context(command), left[0])
        if inner is None:
            break
        command, left = inner, left[1:]
    return command, left
