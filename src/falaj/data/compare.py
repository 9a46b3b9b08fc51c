"""Two versions of a contract: does data that keeps the new one keep the old one too? Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Final

from falaj.data.odcs import Contract, Options, Property, Quality, Table
from falaj.facts.profiles import ContractChange

__all__ = ["compare"]

WIDENS: Final = {"integer": "number"}  # an integer is a number; not the other way


def compare(old: Contract, new: Contract) -> tuple[ContractChange, ...]:
    """Every difference. Breaking: who relies on the old promise may get what it did not allow.

    A promise that is added or made stricter is compatible for readers of the data; its makers have
    to keep it.
    """
    return tuple(_tables(old, new))


def _change(where: str, what: str, *, breaking: bool) -> ContractChange:
    return ContractChange(where=where, what=what, kind="breaking" if breaking else "compatible")


def _tables(old: Contract, new: Contract) -> Iterator[ContractChange]:
    before, after = ({t.name: t for t in c.tables} for c in (old, new))
    for name in before:
        if name not in after:
            yield _change(name, "the table is gone", breaking=True)
        else:
            yield from _table(before[name], after[name])
    for name in after:
        if name not in before:
            yield _change(name, "the table is new", breaking=False)


def _table(old: Table, new: Table) -> Iterator[ContractChange]:
    before, after = ({p.name: p for p in t.properties} for t in (old, new))
    for name, was in before.items():
        if name not in after:
            yield _change(f"{old.name}.{name}", "the column is gone", breaking=True)
        else:
            alone = new.key == (name,)
            yield from _property(f"{old.name}.{name}", was, after[name], is_key=alone)
    for name in after:
        if name not in before:
            yield _change(f"{old.name}.{name}", "the column is new", breaking=False)
    if old.key != new.key:
        told = f"the key was ({', '.join(old.key)}), is ({', '.join(new.key)})"
        # Fewer columns that tell all rows apart promise more.
        narrower = bool(new.key) and set(new.key) <= set(old.key)
        yield _change(old.name, told, breaking=bool(old.key) and not narrower)
    yield from _set(
        f"{old.name}.relationships",
        {_reference(r): "" for r in old.references},
        {_reference(r): "" for r in new.references},
    )
    yield from _freshness(old, new)
    if set(old.null_values) != set(new.null_values):
        what = f"texts for null were {list(old.null_values)}, are {list(new.null_values)}"
        yield _change(old.name, what, breaking=True)
    yield from _quality(old, new)


def _reference(reference: Any) -> str:
    return f"({', '.join(reference.columns)}) in {reference.dataset} ({', '.join(reference.to)})"


def _set(where: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[ContractChange]:
    for one in old:
        if one not in new:
            yield _change(where, f"no longer promised: {one}", breaking=True)
    for one in new:
        if one not in old:
            yield _change(where, f"newly promised: {one}", breaking=False)


def _property(
    where: str, old: Property, new: Property, *, is_key: bool
) -> Iterator[ContractChange]:
    """is_key: the column alone is the new key, so it is there and once whatever else is said."""
    if old.logical_type != new.logical_type:
        stricter = not old.logical_type or WIDENS.get(new.logical_type) == old.logical_type
        told = f"the type was {old.logical_type or 'open'}, is {new.logical_type or 'open'}"
        yield _change(where, told, breaking=not stricter)
    for word in ("required", "unique"):
        was, now = getattr(old, word), getattr(new, word)
        implied = is_key or (word == "required" and new.key_position is not None)
        if was != now and not implied:
            told = f"{word} was {str(was).lower()}, is {str(now).lower()}"
            yield _change(where, told, breaking=was)
    if old.classification != new.classification:
        told = f"the class was {old.classification or 'open'}, is {new.classification or 'open'}"
        # Readers may not be allowed to see it any more, or see too much.
        yield _change(where, told, breaking=True)
    if set(map(repr, old.allowed)) != set(map(repr, new.allowed)):
        yield _allowed(where, old.allowed, new.allowed)
    yield from _options(where, old.options, new.options)


def _allowed(where: str, old: tuple[Any, ...], new: tuple[Any, ...]) -> ContractChange:
    more = [value for value in new if value not in old]
    fewer = [value for value in old if value not in new]
    told = []
    if old and not new:
        return _change(where, "any value is allowed now", breaking=True)
    if not old:
        return _change(where, f"only {len(new)} values are allowed now", breaking=False)
    if more:
        told.append(f"newly allowed: {', '.join(map(str, more[:5]))}")
    if fewer:
        told.append(f"no longer allowed: {', '.join(map(str, fewer[:5]))}")
    return _change(where, "; ".join(told) or "the values are written anew", breaking=bool(more))


def _options(where: str, old: Options, new: Options) -> Iterator[ContractChange]:
    for low, exclusive, sign in (
        ("minimum", "exclusive_minimum", 1),
        ("maximum", "exclusive_maximum", -1),
    ):
        was, now = getattr(old, low), getattr(new, low)
        was_open, now_open = getattr(old, exclusive), getattr(new, exclusive)
        if (was, was_open) != (now, now_open):
            told = f"{low} was {_bound(was, was_open)}, is {_bound(now, now_open)}"
            yield _change(where, told, breaking=not _is_inside(was, was_open, now, now_open, sign))
    for word, sign in (("min_length", 1), ("max_length", -1), ("min_items", 1), ("max_items", -1)):
        was, now = getattr(old, word), getattr(new, word)
        if was != now:
            told = f"{word.replace('_', ' ')} was {_open(was)}, is {_open(now)}"
            yield _change(where, told, breaking=not _is_inside(was, False, now, False, sign))
    if old.multiple_of != new.multiple_of:
        was, now = old.multiple_of, new.multiple_of
        good = was is None or (now is not None and (now / was).is_integer())
        yield _change(where, f"multiple of {_open(was)} is now {_open(now)}", breaking=not good)
    for word in ("pattern", "format", "timezone"):
        was, now = getattr(old, word), getattr(new, word)
        if was != now:
            told = f"{word} was {_open(was)}, is {_open(now)}"
            yield _change(where, told, breaking=was not in ("", None))
    if old.unique_items != new.unique_items:
        word = "items may repeat now" if old.unique_items else "items may no longer repeat"
        yield _change(where, word, breaking=old.unique_items)


def _is_inside(was: Any, was_open: bool, now: Any, now_open: bool, sign: int) -> bool:
    """Whether everything inside the new bound is inside the old one. sign: 1 for a least."""
    if was is None:
        return True
    if now is None:
        return False
    try:
        if now == was:
            return now_open or not was_open
        return bool(now > was if sign > 0 else now < was)
    except TypeError:
        return False  # a number and a date: nobody can say


def _bound(value: Any, is_open: bool) -> str:
    return f"{value} (itself not)" if is_open and value is not None else _open(value)


def _open(value: Any) -> str:
    return "open" if value in (None, "") else str(value)


def _freshness(old: Table, new: Table) -> Iterator[ContractChange]:
    before, after = ({f.column: f.seconds for f in t.freshness} for t in (old, new))
    for column in dict.fromkeys([*before, *after]):
        was, now = before.get(column), after.get(column)
        if was != now:
            told = f"newest value at most {_open(was)} s old, now {_open(now)} s"
            breaking = was is not None and (now is None or now > was)
            yield _change(f"{old.name}.{column}", told, breaking=breaking)


def _quality(old: Table, new: Table) -> Iterator[ContractChange]:
    """Rules are told apart by their ids. Which of two rules asks for more is said where it is sure."""
    before, after = ({q.id: q for q in t.quality} for t in (old, new))
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name), after.get(name)
        where = f"{old.name}.quality.{name}"
        if was is None or now is None:
            told = "the rule is new" if was is None else "the rule is gone"
            counts = was is not None and was.severity == "error"
            yield _change(where, told, breaking=counts)
        elif differing := _differing(was, now):
            told = ", ".join(differing)
            yield _change(where, f"changed: {told}", breaking=not _is_stricter(was, now, differing))


def _differing(old: Quality, new: Quality) -> list[str]:
    skipped = {"place", "description", "id"}
    return [
        one.name
        for one in fields(old)
        if one.name not in skipped and getattr(old, one.name) != getattr(new, one.name)
    ]


def _is_stricter(old: Quality, new: Quality, differing: list[str]) -> bool:
    if old.severity != "error":
        return True  # it was told, never promised
    if differing == ["valid_values"]:
        return bool(new.valid_values) and set(map(repr, new.valid_values)) <= set(
            map(repr, old.valid_values)
        )
    if differing == ["missing_values"]:
        return set(map(repr, old.missing_values)) <= set(map(repr, new.missing_values))
    if differing == ["limit"]:
        first = (old.limit[0], new.limit[0])
        match old.operator:
            case ">" | ">=":
                return first[1] >= first[0]
            case "<" | "<=":
                return first[1] <= first[0]
            case "between":
                return first[1] >= first[0] and new.limit[-1] <= old.limit[-1]
    return False
