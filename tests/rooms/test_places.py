from __future__ import annotations

import json
import tomllib
from datetime import UTC, date, datetime, time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from falaj.base.places import dotted, places

BARE = st.text("abzAZ019_-", min_size=1, max_size=6)
ANY = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
KEYS = st.one_of(BARE, BARE, ANY)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, width=32),
    ANY,
    st.text("\"'\\\n #[]{}=,.", max_size=8),
    st.datetimes().map(lambda d: d.replace(microsecond=0)),
    st.datetimes().map(lambda d: d.replace(tzinfo=UTC)),
    st.dates(),
    st.times().map(lambda t: t.replace(microsecond=0)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
TABLES = st.dictionaries(KEYS, VALUES, max_size=5)


class Writer:
    """Writes a tree as TOML in one of its many spellings, drawn at random."""

    def __init__(self, draw):
        self.pick = lambda *choices: draw(st.sampled_from(choices))

    def key(self, key):
        if key and all(c.isascii() and (c.isalnum() or c in "_-") for c in key):
            return self.pick(key, key, f'"{key}"', f"'{key}'")
        return json.dumps(key, ensure_ascii=False).replace("\x7f", "\\u007f")

    def value(self, value):
        match value:
            case bool():
                return "true" if value else "false"
            case int():
                return self.pick(str(value), f"{value:_}")
            case float():
                return repr(value) if value not in (float("inf"), -float("inf")) else f"{value}"
            case str():
                return self.text(value)
            case datetime():
                return value.isoformat(self.pick("T", " "))
            case date() | time():
                return value.isoformat()
            case list():
                return self.list(value)
            case dict():
                pairs = (
                    f"{self.key(k)}{self.pick('', ' ')}= {self.value(v)}" for k, v in value.items()
                )
                return "{" + self.pick("", " ") + self.pick(",", " , ").join(pairs) + "}"

    def text(self, text):
        ways = [json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")]
        if "'" not in text and "\n" not in text:
            ways.append(f"'{text}'")
        if "'''" not in text and not text.endswith("'"):
            ways.append(f"'''\n{text}'''")
        ways.append('"""\n' + ways[0][1:-1].replace("\\n", "\n") + '"""')
        if text.endswith('"') and not text.endswith('""'):
            plain = json.dumps(text[:-1], ensure_ascii=False).replace("\x7f", "\\u007f")
            ways.append('"""\n' + plain[1:-1] + '""""')
        return self.pick(*ways)

    def list(self, values):
        gap = self.pick("", " ", "\n\t", " # [ , ] 'a\n ")
        inner = f"{gap},{gap}".join(self.value(v) for v in values)
        return f"[{gap}{inner}{gap}{',' if values and self.pick(True, False) else ''}{gap}]"

    def table(self, table, path=()):
        """Pairs first, then sub-tables as headers, lists of tables as headers or inline."""
        lines, later = [], []
        for key, value in table.items():
            way = self.pick("header", "inline", "dotted")
            if isinstance(value, dict) and way == "header":
                later.append(("table", key, value))
            elif isinstance(value, dict) and value and way == "dotted":
                for inner, leaf in value.items():
                    dot = self.pick(".", " . ", "\t.")
                    lines.append(f"{self.key(key)}{dot}{self.key(inner)} = {self.value(leaf)}")
            elif self.many(value) and way == "header":
                later.append(("many", key, value))
            else:
                lines.append(f"{self.pick('', '  ')}{self.key(key)} = {self.value(value)}")
            lines.append(self.pick("", "# x = 'y", "   "))
        for kind, key, value in later:
            at = (*path, key)
            name = self.pick(".", " . ").join(self.key(part) for part in at)
            for element in value if kind == "many" else [value]:
                lines.append(f"[[{name}]]" if kind == "many" else f"[ {name} ] # here")
                lines += self.table(element, at)
        return lines

    def many(self, value):
        return isinstance(value, list) and value and all(isinstance(v, dict) for v in value)


@st.composite
def documents(draw):
    writer = Writer(draw)
    lines = writer.table(draw(TABLES))
    return writer.pick("\n", "\n\n").join(lines) + writer.pick("", "\n")


def paths(value, at=()):
    pairs = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in pairs:
        yield (*at, key)
        yield from paths(inner, (*at, key))


def leaf(tree, path):
    for part in path:
        tree = tree[part]
    return tree


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(documents())
def test_names_exactly_the_paths_that_tomllib_reads(text):
    tree = tomllib.loads(text)
    found = places(text)
    assert set(found) == set(paths(tree))
    lines = text.split("\n")
    for path, spot in found.items():
        value = leaf(tree, path)
        line, column = spot.value
        rest = lines[line - 1][column - 1 :]
        if isinstance(value, bool | int):
            assert tomllib.loads(
                f"x = [{rest.split(',')[0].split(']')[0].split('}')[0].split('#')[0]}]"
            )["x"] == [value]
        if isinstance(value, str):
            assert rest[0] in "\"'"
        if isinstance(path[-1], str):
            line, column = spot.key
            assert lines[line - 1][column - 1] in (path[-1][:1], '"', "'")


CASES = {  # text, path, key, value
    "a pair": ("a = 1", ("a",), (1, 1), (1, 5)),
    "columns count signs, not bytes": ('"é" = 1', ("é",), (1, 1), (1, 7)),
    "a table stands at its name": ("\n[ a.b ]\nc=1", ("a", "b"), (2, 5), (2, 5)),
    "an implied table stands where it is named": ("[a.b]", ("a",), (1, 2), (1, 2)),
    "an element of a list": ("a = [1,\n  # no, [2]\n  2]", ("a", 1), (3, 3), (3, 3)),
    "a table in a list of tables": ("[[a]]\nx=1\n[[a]]\nx=2", ("a", 1, "x"), (4, 1), (4, 3)),
    "a table below the newest element": (
        "[[a]]\n[[a]]\n[a.b]\nc=1",
        ("a", 1, "b", "c"),
        (4, 1),
        (4, 3),
    ),
    "inline tables": (
        "a = { b = 1, c.d = [ { e = 2 } ] }",
        ("a", "c", "d", 0, "e"),
        (1, 24),
        (1, 28),
    ),
    "signs inside a text": ("a = '''\n# x = [\n'''\nb = 1", ("b",), (4, 1), (4, 5)),
    "quotes before the closing ones": ('a = """x"""""\nb = 1', ("b",), (2, 1), (2, 5)),
    "a date with a space": ("a = 2020-01-02 03:04:05\nb = 1", ("b",), (2, 1), (2, 5)),
}


@pytest.mark.parametrize(("text", "path", "key", "value"), CASES.values(), ids=CASES)
def test_places(text, path, key, value):
    tomllib.loads(text)
    assert places(text)[path] == (key, value)


def test_a_path_as_people_write_it():
    assert dotted(("datasets", 0, "name")) == "datasets[0].name"
