"""Read falaj.toml: all mistakes at once, each with its place, in the order of the file."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from falaj.base import places, settings
from falaj.base.errors import FalajError, Place, Problem
from falaj.facts.project import Policy, Project

__all__ = ["ConfigValue", "config_values", "read_policy", "read_project"]

T = TypeVar("T", bound=msgspec.Struct)

MOST: Final = 20
LARGEST_BYTES: Final = 1_000_000
SYNTAX: Final = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
SECRET: Final = re.compile(r"passw|secret|token|credential|private|api_?key", re.IGNORECASE)


class ConfigValue(NamedTuple):
    """origin: `falaj.toml:12` or `default`."""

    path: str
    value: Any
    origin: str


def read_project(path: Path) -> Project:
    """Read a project file, or the one in a folder.

    Raises FalajError with up to 20 problems: config.no-project, config.syntax, config.unknown-key,
    config.wrong-type, config.out-of-range, config.missing.
    """
    return _read(path)[0]


def read_policy(path: Path) -> Policy:
    """Read rules on their own: `[gates.*]` tables and `requires`. Raises as `read_project` does."""
    return _typed(path, Policy)[0]


def config_values(path: Path) -> list[ConfigValue]:
    """Every setting in force and where it came from. Raises as `read_project` does."""
    project, spots, name = _read(path)
    tree: dict[str, Any] = msgspec.to_builtins(project)
    return [
        ConfigValue(
            places.dotted(at), value, f"{name}:{spots[at].key[0]}" if at in spots else "default"
        )
        for at, value in _leaves(tree, ())
    ]


def _leaves(value: Any, at: places.Path) -> list[tuple[places.Path, Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, (*at, key))]
    if isinstance(value, list | tuple) and value and isinstance(value[0], dict):
        return [leaf for i, inner in enumerate(value) for leaf in _leaves(inner, (*at, i))]
    return [] if value is None or value == {} else [(at, value)]


def _read(path: Path) -> tuple[Project, dict[places.Path, places.Spot], str]:
    return _typed(path / "falaj.toml" if path.is_dir() else path, Project)


def _typed(path: Path, kind: type[T]) -> tuple[T, dict[places.Path, places.Spot], str]:
    text = _text(path)
    try:
        tree = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _syntax(path.name, text, str(error)) from None
    spots = places.places(text)
    found = settings.mistakes(kind, tree)
    if found:
        raise FalajError.of(_problems(path.name, text, spots, found))
    return msgspec.convert(tree, kind), spots, path.name


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise FalajError(
            "config.no-project",
            f"there is no {path.name} in {path.parent}",
            why="a project is a folder with a falaj.toml",
            fix="run `falaj init`, or name the project's folder",
        ) from None
    except OSError as error:
        raise FalajError(
            "config.no-project",
            f"{path.name} cannot be read: {error.strerror}",
            fix=f"make {path} readable for this account",
        ) from None
    if len(data) > LARGEST_BYTES:
        words = f"{path.name} has {len(data)} bytes, at most {LARGEST_BYTES} are read"
        raise FalajError("config.syntax", words, fix="data does not belong into the project file")
    try:
        return data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        raise FalajError(
            "config.syntax",
            f"{path.name} is not UTF-8",
            fix="save it as UTF-8",
            place=Place(file=path.name, line=line, column=column),
        ) from None


def _syntax(name: str, text: str, words: str) -> FalajError:
    lines = text.split("\n")
    said = SYNTAX.fullmatch(words)
    line = int(said[2]) if said and said[2] else len(lines)
    column = int(said[3]) if said and said[3] else len(lines[-1]) + 1
    problem = said[1] if said else "too deeply nested" if "recursion" in words else words
    return FalajError(
        "config.syntax",
        f"this is not TOML: {problem[:1].lower()}{problem[1:]}",
        fix="correct the line; texts stand in quotes, lists in [ ], true and false are small",
        place=Place(
            file=name, line=line, column=column, excerpt=_excerpt(lines, line, hidden=set())
        ),
    )


def _problems(
    name: str,
    text: str,
    spots: dict[places.Path, places.Spot],
    found: list[settings.Mistake],
) -> tuple[Problem, ...]:
    lines = text.split("\n")
    hidden = _hidden(spots, {m.path for m in found if m.reason == "unknown-key"}, len(lines))
    placed = [(_where(mistake, spots), mistake) for mistake in found]
    placed.sort(key=lambda pair: pair[0])  # stable: same place, order of the walk
    return tuple(
        Problem(
            code=f"config.{mistake.reason}",
            message=mistake.message,
            fix=mistake.fix or "see the reference of falaj.toml",
            place=Place(
                file=name,
                line=line,
                column=column,
                excerpt=_excerpt(lines, line, hidden),
                note=mistake.note,
            ),
        )
        for (line, column), mistake in placed[:MOST]
    )


def _where(mistake: settings.Mistake, spots: dict[places.Path, places.Spot]) -> tuple[int, int]:
    """The nearest place that stands in the file; line 1 for a table that is not there at all."""
    path = mistake.path
    while path and path not in spots:
        path = path[:-1]
    if not path:
        return 1, 1
    spot = spots[path]
    return spot.key if mistake.at_key or path != mistake.path else spot.value


def _hidden(
    spots: dict[places.Path, places.Spot], unknown: set[places.Path], last: int
) -> set[int]:
    """Lines that hold values of unknown keys: one of them may be a secret in the wrong place."""
    order = sorted(spots.items(), key=lambda pair: pair[1].key)
    lines: set[int] = set()
    for number, (path, spot) in enumerate(order):
        if any(path[: len(u)] == u for u in unknown):
            after = order[number + 1][1].key[0] if number + 1 < len(order) else last + 1
            lines.update(range(spot.key[0], max(after, spot.key[0] + 1)))
    return lines


def _excerpt(lines: list[str], line: int, hidden: set[int]) -> tuple[tuple[int, str], ...]:
    """The line and the one before it, values of unknown or secret-like keys left out."""
    wanted = [n for n in (line - 1, line) if 1 <= n <= len(lines) and (n == line or lines[n - 1])]
    return tuple((n, _shown(lines[n - 1], hide=n in hidden)) for n in wanted)


def _shown(line: str, *, hide: bool) -> str:
    key, equals, _ = line.partition("=")
    if not hide and not SECRET.search(line):
        return line
    return f"{key}= ..." if equals else line if line.lstrip().startswith("[") else "..."
