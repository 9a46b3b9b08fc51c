"""Questions about runs: `metrics.auc > 0.7 and params.month_to = 4`. Parsed, never pasted."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, TypeAlias

from falaj.base.errors import FalajError

__all__ = ["Both", "Compare", "Either", "Filter", "Not", "Order", "parse", "parse_order"]

FIELDS: Final = ("status", "model")
MOST: Final = 2000  # characters, and far more than anybody types


class Compare(NamedTuple):
    """One comparison. kind: metrics, params or run. value: a number, or a text."""

    kind: str
    name: str
    sign: str
    value: float | str


class Not(NamedTuple):
    inner: Filter


class Both(NamedTuple):
    left: Filter
    right: Filter


class Either(NamedTuple):
    left: Filter
    right: Filter


class Order(NamedTuple):
    kind: str
    name: str
    falling: bool


Filter: TypeAlias = Compare | Not | Both | Either
TOKEN: Final = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.])"
    r"|(?P<name>[A-Za-z_][\w.]*)"
    r"|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<sign><=|>=|!=|=|<|>|\(|\)))"
)


def parse(text: str) -> Filter | None:
    """None for an empty text, which asks for all. Raises FalajError, naming the column."""
    if not text.strip():
        return None
    if len(text) > MOST:
        raise wrong(text[:20], 0, f"is longer than {MOST} characters")
    reader = Reader(text)
    found = reader.either()
    if reader.at < len(reader.tokens):
        raise reader.unexpected("and, or, or the end")
    return found


def parse_order(text: str) -> Order | None:
    """`metrics.auc desc`, `params.depth`; None for an empty text."""
    words = text.split()
    if not words:
        return None
    kind, dot, name = words[0].partition(".")
    way = words[1].lower() if len(words) > 1 else "asc"
    if kind not in ("metrics", "params") or not dot or not name or len(words) > 2:
        raise wrong(text, 0, "expected metrics.NAME or params.NAME, and asc or desc")
    if way not in ("asc", "desc"):
        raise wrong(text, text.find(words[1]), "expected asc or desc")
    return Order(kind, name, way == "desc")


def wrong(text: str, at: int, message: str) -> FalajError:
    return FalajError(
        "runs.filter",
        f"filter {text!r}, column {at + 1}: {message}",
        why="it compares metrics.NAME, params.NAME, status or model, joined by and, or, not, ( )",
        fix="write it like `metrics.auc > 0.7 and params.month_to = 4`",
    )


class Reader:
    """Tokens of one filter: or binds least, then and, then not."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0
        self.tokens: list[tuple[str, str, int]] = []
        position = 0
        while text[position:].strip():
            found = TOKEN.match(text, position)
            if found is None or found.lastgroup is None:
                raise wrong(text, position, f"cannot read {text[position:].strip()[:12]!r}")
            group = found.lastgroup
            self.tokens.append((group, found[group], found.start(group)))
            position = found.end()

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at][:2] if self.at < len(self.tokens) else ("end", "")

    def word(self, *wanted: str) -> bool:
        group, text = self.peek()
        if group in ("name", "sign") and text.lower() in wanted:
            self.at += 1
            return True
        return False

    def unexpected(self, wanted: str) -> FalajError:
        at = self.tokens[self.at][2] if self.at < len(self.tokens) else len(self.text)
        got = repr(self.peek()[1]) if self.peek()[1] else "the end"
        return wrong(self.text, at, f"got {got}, expected {wanted}")

    def either(self) -> Filter:
        found = self.both()
        while self.word("or"):
            found = Either(found, self.both())
        return found

    def both(self) -> Filter:
        found = self.one()
        while self.word("and"):
            found = Both(found, self.one())
        return found

    def one(self) -> Filter:
        self.depth += 1
        if self.depth > 50:
            raise wrong(self.text, 0, "is nested more than 50 deep")
        try:
            if self.word("not"):
                return Not(self.one())
            if self.word("("):
                found = self.either()
                if not self.word(")"):
                    raise self.unexpected(")")
                return found
            return self.compare()
        finally:
            self.depth -= 1

    def compare(self) -> Compare:
        group, name = self.peek()
        kind, dot, rest = name.partition(".")
        if group != "name" or not (
            (dot and rest and kind in ("metrics", "params")) or name in FIELDS
        ):
            raise self.unexpected("metrics.NAME, params.NAME, status or model")
        self.at += 1
        group, sign = self.peek()
        if group != "sign" or sign in "()":
            raise self.unexpected("= != < <= > or >=")
        self.at += 1
        value = self.value()
        if isinstance(value, str) and sign not in ("=", "!="):
            self.at -= 1
            raise self.unexpected("a number: texts are compared by = and != only")
        if isinstance(value, str) != (name in FIELDS) and kind != "params":
            self.at -= 1
            raise self.unexpected("a text" if name in FIELDS else "a number")
        return Compare(kind if dot else "run", rest if dot else name, sign, value)

    def value(self) -> float | str:
        group, text = self.peek()
        if group not in ("number", "text", "name"):
            raise self.unexpected("a number or a text")
        self.at += 1
        if group == "number":
            return float(text)
        return text[1:-1] if group == "text" else text
