"""Golden files of every fact: what was ever written is read, and nothing else is."""

from __future__ import annotations

import json
from datetime import datetime

import msgspec
import pytest
from msgspec.structs import fields
from representative import GOLDEN, facts

from falaj.facts.wire import Fact, canonical_bytes, decode, encode

FACTS = facts()
TIME = "2026-03-01T12:00:00Z"
ADD = "run: PYTHONPATH=src python tests/parts/representative.py"


def golden(name):
    return json.loads((GOLDEN / f"{name}.json").read_text())


def as_bytes(value):
    return json.dumps(value).encode()


def holds(old, new, at="$"):
    """Everything of the old document stands in the new one; fields may have been added."""
    if isinstance(old, dict):
        assert isinstance(new, dict), at
        assert old.keys() <= new.keys(), f"{at} lost {sorted(old.keys() - new.keys())}"
        for key, inner in old.items():
            holds(inner, new[key], f"{at}.{key}")
    elif isinstance(old, list):
        assert isinstance(new, list), at
        assert len(old) == len(new), at
        for index, pair in enumerate(zip(old, new, strict=True)):
            holds(*pair, f"{at}[{index}]")
    else:
        assert old == new, at
        assert type(old) is type(new), at


def test_every_fact_has_its_golden_file():
    found = {path.stem for path in GOLDEN.glob("*.json")}
    assert found - set(FACTS) == set(), "a noun that was ever written is never taken away"
    assert set(FACTS) - found == set(), ADD


@pytest.mark.parametrize("name", FACTS)
def test_what_was_written_is_read_and_written_again(name):
    old = golden(name)
    fact = decode(FACTS[name], as_bytes(old))
    written = encode(fact)
    holds(old, json.loads(written))
    assert decode(FACTS[name], written) == fact
    assert canonical_bytes(fact) == canonical_bytes(decode(FACTS[name], written))


@pytest.mark.parametrize("name", FACTS)
def test_the_golden_file_sets_every_field(name):
    missing = {field.encode_name for field in fields(FACTS[name])} - golden(name).keys()
    assert missing == set(), ADD


@pytest.mark.parametrize("name", FACTS)
def test_a_field_that_nobody_knows_is_refused(name):
    with pytest.raises(msgspec.ValidationError, match="surprise"):
        decode(FACTS[name], as_bytes(golden(name) | {"surprise": 1}))


REQUIRED = [
    (name, field.encode_name)
    for name, kind in FACTS.items()
    for field in fields(kind)
    if field.required
]


@pytest.mark.parametrize(("name", "field"), REQUIRED, ids=lambda x: x)
def test_a_field_without_default_is_missed(name, field):
    document = golden(name)
    del document[field]
    with pytest.raises(msgspec.ValidationError, match=field):
        decode(FACTS[name], as_bytes(document))


@pytest.mark.parametrize("name", FACTS)
def test_fields_with_a_default_may_be_absent(name):
    """So an older writer is understood: what was added later has a default."""
    kind = FACTS[name]
    needed = {field.encode_name for field in fields(kind) if field.required}
    decode(kind, as_bytes({k: v for k, v in golden(name).items() if k in needed}))


TIMES = [
    (name, field.encode_name)
    for name in FACTS
    for field in fields(FACTS[name])
    if golden(name).get(field.encode_name) == TIME
]


@pytest.mark.parametrize(("name", "field"), TIMES, ids=lambda x: x)
def test_a_time_without_a_zone_is_refused(name, field):
    with pytest.raises(msgspec.ValidationError, match=field):
        decode(FACTS[name], as_bytes(golden(name) | {field: TIME.removesuffix("Z")}))
    shifted = decode(FACTS[name], as_bytes(golden(name) | {field: "2026-03-01T16:00:00+04:00"}))
    assert getattr(shifted, field) == datetime.fromisoformat(TIME)


@pytest.mark.parametrize("name", FACTS)
def test_another_kind_of_value_is_refused(name):
    document = golden(name)
    for field, said in document.items():
        wrong = {"not": "this"} if not isinstance(said, dict) else 7
        if any_kind(FACTS[name], field):
            continue
        with pytest.raises(msgspec.ValidationError):
            decode(FACTS[name], as_bytes(document | {field: wrong}))


def any_kind(kind, field):
    found = next(f for f in msgspec.inspect.type_info(kind).fields if f.encode_name == field)
    inner = getattr(found.type, "type", found.type)
    return isinstance(inner, msgspec.inspect.AnyType)


BROKEN = [b"", b"null", b"[]", b"{", b'"x"', b"\xff", b"[" * 5000, b'{"a":NaN}']


@pytest.mark.parametrize("text", BROKEN, ids=lambda t: repr(t[:6]))
def test_what_is_no_document_is_no_fact(text):
    for kind in FACTS.values():
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError, RecursionError)):
            decode(kind, text)


def test_facts_share_one_base_that_refuses_the_unknown():
    for kind in FACTS.values():
        assert issubclass(kind, Fact)
        config = kind.__struct_config__
        assert (config.frozen, config.forbid_unknown_fields, config.tag) == (True, True, None)
