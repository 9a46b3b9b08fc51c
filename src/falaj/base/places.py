"""Where each key and value of a TOML text stands. tomllib keeps no places.

The scanner walks text that tomllib has accepted, so it need not refuse anything: it only has to
step over the same tokens. Law (tests): it names exactly the paths of tomllib's tree.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import Final, NamedTuple, TypeAlias

__all__ = ["Path", "Spot", "dotted", "places"]

Path: TypeAlias = tuple[str | int, ...]

BLANK: Final = re.compile(r"(?:[\s]|#[^\n]*)*")
STRING: Final = re.compile(
    r'"""(?:\\[\s\S]|[^\\])*?"""(?:"{0,2})'
    r"|'''[\s\S]*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
)
KEY: Final = re.compile(r"[A-Za-z0-9_-]+|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'")
DOT: Final = re.compile(r"[ \t]*\.[ \t]*")
# A date and its time may be parted by one space.
SCALAR: Final = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:[^\s,\]}#]+|[^\s,\]}#]+")


class Spot(NamedTuple):
    """Line and column of a key and of its value; both count from 1, columns count characters."""

    key: tuple[int, int]
    value: tuple[int, int]


def dotted(path: Path) -> str:
    """`datasets[0].name`, as people write it."""
    words = ""
    for part in path:
        words += f"[{part}]" if isinstance(part, int) else f".{part}" if words else part
    return words


def places(text: str) -> dict[Path, Spot]:
    """Return the place of every key, table, list and element, in the order of the text.

    `text` must be accepted by tomllib. A table that a header only implies stands where it is
    first named.
    """
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines = [0, *(m.end() for m in re.finditer("\n", text))]
        self.found: dict[Path, Spot] = {}
        self.listed: dict[Path, int] = {}  # arrays of tables -> index of the newest element

    def scan(self) -> dict[Path, Spot]:
        table: Path = ()
        self.blank()
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)
            self.blank()
        return self.found

    def header(self) -> Path:
        many = self.text.startswith("[[", self.at)
        self.at += 2 if many else 1
        self.blank()
        keys = self.keys()
        path: Path = ()
        for number, (part, where) in enumerate(keys):
            path = (*path, part)
            self.note(path, where, where)
            if many and number == len(keys) - 1:
                self.listed[path] = self.listed.get(path, -1) + 1
                path = (*path, self.listed[path])
                self.note(path, where, where)
            elif path in self.listed:
                path = (*path, self.listed[path])
        self.blank()
        self.at += 2 if many else 1
        return path

    def pair(self, table: Path) -> None:
        path = table
        for part, where in self.keys():
            path = (*path, part)
            self.note(path, where, where)
            key = where
        self.blank()
        self.at += 1  # the equals sign
        self.blank()
        self.value(path, key)

    def keys(self) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        while token := KEY.match(self.text, self.at):
            found.append((_plain(token[0]), self.at))
            self.at = token.end()
            if not (dot := DOT.match(self.text, self.at)):
                break
            self.at = dot.end()
        return found

    def value(self, path: Path, key: int) -> None:
        self.found[path] = Spot(self.place(key), self.place(self.at))
        first = self.text[self.at]
        if first == "[":
            self.elements(path)
        elif first == "{":
            self.inline(path)
        elif token := STRING.match(self.text, self.at) or SCALAR.match(self.text, self.at):
            self.at = token.end()

    def elements(self, path: Path) -> None:
        self.at += 1
        self.blank()
        index = 0
        while self.text[self.at] != "]":
            self.value((*path, index), self.at)
            index += 1
            self.comma()
        self.at += 1

    def inline(self, path: Path) -> None:
        self.at += 1
        self.blank()
        while self.text[self.at] != "}":
            self.pair(path)
            self.comma()
        self.at += 1

    def comma(self) -> None:
        self.blank()
        if self.text[self.at] == ",":
            self.at += 1
            self.blank()

    def blank(self) -> None:
        if token := BLANK.match(self.text, self.at):
            self.at = token.end()

    def note(self, path: Path, key: int, value: int) -> None:
        if path not in self.found:
            self.found[path] = Spot(self.place(key), self.place(value))

    def place(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self.lines, offset)
        return line, offset - self.lines[line - 1] + 1


def _plain(token: str) -> str:
    if token[0] not in "\"'":
        return token
    return str(tomllib.loads(f"x = {token}")["x"])
