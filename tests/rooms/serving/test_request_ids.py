from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falaj.facts.serving import Boot
from falaj.serving.requests import RequestIds, parts, which_release

BOOT = "0123456789abcdef"


def record(ids):
    slots = {str(slot): release for release, slot in ids.slots.items()}
    return Boot(boot=ids.boot, at=datetime.now(UTC), pid=1, slots=slots)


@given(
    st.lists(st.text(min_size=1, max_size=5), min_size=1, unique=True), st.integers(1, 2**48 - 1)
)
def test_every_name_leads_to_its_release(releases, counter):
    ids = RequestIds(BOOT)
    for release in releases:
        ids.slot(release)
    boots = [record(RequestIds("f" * 16)), record(ids)]
    for release in releases:
        name = ids.name(release, counter)
        assert len(name) == 32
        assert which_release(name, boots) == release
        assert parts(name) == (BOOT, ids.slots[release], counter)


def test_a_release_keeps_its_slot():
    ids = RequestIds(BOOT)
    assert (ids.slot("a"), ids.slot("b"), ids.slot("a")) == (1, 2, 1)


def test_nobody_answered_a_refused_request():
    ids = RequestIds(BOOT)
    ids.slot("a")
    assert which_release(ids.name("", 5), [record(ids)]) is None


def test_an_unknown_boot_is_nobody():
    assert which_release("f" * 32, [record(RequestIds(BOOT))]) is None


@pytest.mark.parametrize("text", ["", "x" * 32, "A" * 32, "0" * 31, "0" * 33, "0" * 31 + "\n"])
def test_what_is_no_request_id_is_said(text):
    with pytest.raises(ValueError, match="32 lower-case hex"):
        which_release(text, [])


def test_slots_end():
    ids = RequestIds(BOOT)
    for number in range(65_535):
        ids.slot(str(number))
    with pytest.raises(OverflowError):
        ids.slot("one more")
