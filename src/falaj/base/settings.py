"""Check a tree of plain values against typed tables; all mistakes at once, not the first.

msgspec.convert stops at the first mistake. This walk reads the same types and limits
(`msgspec.Meta`) and goes on. Two words in `Meta(extra=...)` are ours: `noun` names a value for
people ("a share"), `span` holds the least and the longest time in seconds of a text like `5m`.
Laws between fields live in `__post_init__` as `ValueError("field: what is wrong")`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import inspect as kinds

from falaj.base.places import Path, dotted
from falaj.base.time import parse_span

__all__ = ["Mistake", "Setting", "mistakes", "nearest", "settings"]


class Mistake(NamedTuple):
    """reason: unknown-key | wrong-type | out-of-range | missing. at_key: the key is to blame."""

    path: Path
    reason: str
    message: str
    note: str = ""
    fix: str = ""
    at_key: bool = False


class Setting(NamedTuple):
    """One setting for the reference page. `<name>` and `[]` stand for what the author chooses."""

    path: str
    kind: str
    default: str
    about: str


NOUNS: Final[dict[type, str]] = {
    kinds.BoolType: "true or false",
    kinds.IntType: "a whole number",
    kinds.FloatType: "a number",
    kinds.StrType: "text",
    kinds.VarTupleType: "a list",
    kinds.ListType: "a list",
    kinds.DictType: "a table",
    kinds.StructType: "a table",
    kinds.AnyType: "any value",
}


def nearest(word: str, known: list[str]) -> str:
    """The known name that `word` was probably meant to be, or nothing."""
    import difflib

    found = difflib.get_close_matches(word.lower(), [k.lower() for k in known], 1, 0.6)
    return next((k for k in known if found and k.lower() == found[0]), "")


def mistakes(kind: type[msgspec.Struct], tree: dict[str, Any]) -> list[Mistake]:
    """Everything in `tree` that does not fit `kind`, depth first, in the order of the tree."""
    return list(_check(kinds.type_info(kind), tree, ()))


def settings(kind: type[msgspec.Struct]) -> list[Setting]:
    """Every setting below `kind`, in the order of its declaration."""
    return list(_list(kinds.type_info(kind), ""))


def _check(kind: kinds.Type, value: object, path: Path) -> Iterator[Mistake]:
    kind, extra = _bare(_meant(kind, value))
    match kind:
        case kinds.StructType():
            yield from _check_table(kind, value, path)
        case kinds.DictType():
            yield from _check_names(kind, value, path)
        case kinds.VarTupleType() | kinds.ListType():
            yield from _check_list(kind, value, path, extra)
        case kinds.EnumType():
            yield from _check_choice(value, [str(e.value) for e in kind.cls], path)
        case kinds.LiteralType():
            yield from _check_choice(value, [str(v) for v in kind.values], path)
        case kinds.StrType():
            yield from _check_text(kind, value, path, extra)
        case kinds.IntType() | kinds.FloatType():
            yield from _check_number(kind, value, path, extra)
        case kinds.BoolType() if not isinstance(value, bool):
            yield _wrong(path, "true or false", value)
        case _:
            return


def _bare(kind: kinds.Type) -> tuple[kinds.Type, dict[str, Any]]:
    """The type without its notes and without `or nothing` (a file cannot write nothing)."""
    extra: dict[str, Any] = {}
    while True:
        if isinstance(kind, kinds.Metadata):
            extra = {**(kind.extra or {}), **extra}
            if kind.extra_json_schema and "description" in kind.extra_json_schema:
                extra.setdefault("about", kind.extra_json_schema["description"])
            kind = kind.type
        elif isinstance(kind, kinds.UnionType):
            kind = next(t for t in kind.types if not isinstance(t, kinds.NoneType))
        else:
            return kind, extra


def _meant(kind: kinds.Type, value: object) -> kinds.Type:
    """Where one table or a list of them may stand: the one that the value looks like."""
    inner = kind
    while isinstance(inner, kinds.Metadata):
        inner = inner.type
    if isinstance(inner, kinds.UnionType) and isinstance(value, list | tuple):
        return next((t for t in inner.types if isinstance(t, kinds.VarTupleType)), kind)
    return kind


def _check_table(kind: kinds.StructType, value: object, path: Path) -> Iterator[Mistake]:
    if not isinstance(value, dict):
        yield _wrong(path, "a table", value)
        return
    found: list[Mistake] = []
    fields = {field.encode_name: field for field in kind.fields}
    for key, inner in value.items():
        if key in fields:
            found.extend(_check(fields[key].type, inner, (*path, key)))
        else:
            found.append(_unknown(key, list(fields), path))
    for name, field in fields.items():
        if field.required and name not in value:
            found.append(_missing(name, field, path))
    if all(m.reason == "unknown-key" and len(m.path) == len(path) + 1 for m in found):
        known = {key: inner for key, inner in value.items() if key in fields}
        found.extend(_check_laws(kind.cls, known, path))
    yield from found


def _check_laws(kind: type, value: dict[str, Any], path: Path) -> Iterator[Mistake]:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        field, _, words = str(error.__cause__ or error).partition(": ")
        inner = tuple(int(p) if p.isdigit() else p for p in field.split("."))
        last = inner[-1] if isinstance(inner[-1], str) else dotted(inner)
        yield Mistake((*path, *inner), "out-of-range", f"{last}: {words}" if words else field)


def _check_names(kind: kinds.DictType, value: object, path: Path) -> Iterator[Mistake]:
    if not isinstance(value, dict):
        yield _wrong(path, "a table", value)
        return
    for key, inner in value.items():
        wrong = next(_check(kind.key_type, key, (*path, key)), None)
        if wrong is not None:
            yield wrong._replace(at_key=True)
        else:
            yield from _check(kind.value_type, inner, (*path, key))


def _check_list(
    kind: kinds.VarTupleType | kinds.ListType, value: object, path: Path, extra: dict[str, Any]
) -> Iterator[Mistake]:
    if not isinstance(value, list | tuple):
        yield _wrong(path, "a list", value)
        return
    if len(value) < (kind.min_length or 0):
        noun = extra.get("noun", "a list")
        yield _empty(path, noun)
    for index, inner in enumerate(value):
        yield from _check(kind.item_type, inner, (*path, index))


def _check_choice(value: object, known: list[str], path: Path) -> Iterator[Mistake]:
    choice = f"one of {', '.join(known)}" if len(known) > 1 else f"{known[0]!r}"
    if not isinstance(value, str):
        yield _wrong(path, choice, value)
    elif value not in known:
        meant = nearest(value, known)
        fix = f"did you mean `{meant}`?" if meant else f"write {choice}"
        yield Mistake(path, "out-of-range", f"{_last(path)} is {choice}, got {value!r}", fix=fix)


def _check_text(
    kind: kinds.StrType, value: object, path: Path, extra: dict[str, Any]
) -> Iterator[Mistake]:
    noun = extra.get("noun", "text")
    if not isinstance(value, str):
        yield _wrong(path, noun, value)
    elif "span" in extra:
        yield from _check_span(value, path, *extra["span"])
    elif len(value) < (kind.min_length or 0):
        yield _empty(path, noun)
    elif kind.max_length is not None and len(value) > kind.max_length:
        words = f"{_last(path)} has {len(value)} characters, at most {kind.max_length} are allowed"
        yield Mistake(path, "out-of-range", words, fix="shorten it")
    elif kind.pattern is not None and not re.search(kind.pattern, value):
        words = f"{_last(path)} is {noun}, got {value!r}"
        yield Mistake(path, "out-of-range", words, fix=f"write {noun}")


def _check_span(value: str, path: Path, least: float, most: float) -> Iterator[Mistake]:
    try:
        seconds = parse_span(value).total_seconds()
    except (ValueError, OverflowError):
        noun = "a time such as 30s, 5m, 12h or 1d"
        words = f"{_last(path)} is {noun}, got {value!r}"
        yield Mistake(path, "wrong-type", words, fix="write a number and ms, s, m, h or d")
        return
    if not least <= seconds <= most:
        limits = f"between {_span(least)} and {_span(most)}"
        words = f"{_last(path)} is a time {limits}, got {value}"
        yield Mistake(path, "out-of-range", words, fix=f"write a time {limits}")


def _check_number(
    kind: kinds.IntType | kinds.FloatType, value: object, path: Path, extra: dict[str, Any]
) -> Iterator[Mistake]:
    whole = isinstance(kind, kinds.IntType)
    noun = extra.get("noun", NOUNS[type(kind)])
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        yield _wrong(path, noun, value)
        return
    inside = (
        (kind.ge is None or value >= kind.ge)
        and (kind.gt is None or value > kind.gt)
        and (kind.le is None or value <= kind.le)
        and (kind.lt is None or value < kind.lt)
        and value == value  # noqa: PLR0124 not a number is in no range
    )
    if inside:
        return
    note = fix = ""
    if noun == "a share" and 1 < value <= 100:
        note = f"{value:g} would be {value * 100:g} %"
        fix = f"write {value / 100:g} for {value:g} %"
    words = f"{_last(path)} is {noun} {_range(kind)}, got {value}"
    yield Mistake(path, "out-of-range", words, note, fix or f"write {noun} {_range(kind)}")


def _range(kind: kinds.IntType | kinds.FloatType) -> str:
    if kind.ge is not None and kind.le is not None:
        return f"between {_plain(kind.ge)} and {_plain(kind.le)}"
    low = f"above {_plain(kind.gt)}" if kind.gt is not None else ""
    low = f"at least {_plain(kind.ge)}" if kind.ge is not None else low
    high = f"below {_plain(kind.lt)}" if kind.lt is not None else ""
    high = f"at most {_plain(kind.le)}" if kind.le is not None else high
    return " and ".join(word for word in (low, high) if word)


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


def _empty(path: Path, noun: str) -> Mistake:
    words = f"{_last(path)} is {noun} and must not be empty"
    return Mistake(path, "out-of-range", words, fix="write at least one")


def _unknown(key: str, known: list[str], path: Path) -> Mistake:
    home = f"[{dotted(path)}]" if path else "falaj.toml"
    meant = nearest(key, known)
    fix = f"did you mean `{meant}`?" if meant else f"remove it; {home} knows {', '.join(known)}"
    return Mistake((*path, key), "unknown-key", f"{home} has no key `{key}`", "", fix, at_key=True)


def _missing(name: str, field: kinds.Field, path: Path) -> Mistake:
    kind, extra = _bare(field.type)
    noun = extra.get("noun", _noun(kind))
    home = f"[{dotted(path)}]" if path else "falaj.toml"
    if isinstance(kind, kinds.StructType):
        return Mistake(path, "missing", f"table [{name}] is missing", fix=f"add [{name}]")
    about = f": {extra['about']}" if "about" in extra else ""
    fix = f"add `{name} = ...`, {noun}{about}"
    return Mistake(path, "missing", f"{home} needs `{name}`", fix=fix, at_key=True)


def _wrong(path: Path, noun: str, value: object) -> Mistake:
    words = f"{_last(path)} is {noun}, got {_got(value)}"
    bare = isinstance(value, str) and re.fullmatch(r"-?[0-9.]+|true|false", value)
    return Mistake(
        path, "wrong-type", words, fix="leave out the quotes" if bare else f"write {noun}"
    )


def _got(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case dict():
            return "a table"
        case datetime() | date() | time():
            return "a date or time"
        case _:
            return type(value).__name__


def _last(path: Path) -> str:
    """`margin`, `steps_pct[1]`: the last name with the indices behind it."""
    names = [place for place, part in enumerate(path) if isinstance(part, str)]
    return dotted(path[names[-1] :]) if names else "the file"


def _span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds * 1000:g}ms" if seconds else "0s"


def _noun(kind: kinds.Type) -> str:
    if isinstance(kind, kinds.EnumType):
        return f"one of {', '.join(str(e.value) for e in kind.cls)}"
    if isinstance(kind, kinds.LiteralType):
        return f"one of {', '.join(map(str, kind.values))}"
    return NOUNS.get(type(kind), "a value")


def _list(kind: kinds.Type, path: str) -> Iterator[Setting]:
    bare, _ = _bare(kind)
    if not isinstance(bare, kinds.StructType):
        return
    for field in bare.fields:
        at = f"{path}.{field.encode_name}" if path else field.encode_name
        yield from _list_field(field, at)


def _list_field(field: kinds.Field, at: str) -> Iterator[Setting]:
    kind, extra = _bare(field.type)
    if isinstance(kind, kinds.VarTupleType):
        inner, _ = _bare(kind.item_type)
        if isinstance(inner, kinds.StructType):
            yield from _list(inner, f"{at}[]")
            return
    if isinstance(kind, kinds.DictType):
        inner, _ = _bare(kind.value_type)
        if isinstance(inner, kinds.StructType):
            yield from _list(inner, f"{at}.<name>")
            return
    if isinstance(kind, kinds.StructType):
        yield from _list(kind, at)
        return
    noun = extra.get("noun", _noun(kind))
    if isinstance(kind, kinds.IntType | kinds.FloatType):
        noun = f"{noun} {_range(kind)}".strip()
    if "span" in extra:
        noun = "a time between {} and {}".format(*map(_span, extra["span"]))
    if isinstance(kind, kinds.VarTupleType):
        item, more = _bare(kind.item_type)
        noun = f"a list, each {more.get('noun', _noun(item))}"
    yield Setting(at, noun, _default(field), extra.get("about", ""))


def _default(field: kinds.Field) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else None
    if value is None and field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    if value is None:
        return "none"
    return msgspec.json.encode(value).decode().replace(",", ", ")
