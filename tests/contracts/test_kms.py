"""The contract of ports.kms.Kms, run over every adapter; and what the local folder promises."""

from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from falaj.base.errors import NotAllowed
from falaj.links.keyring.kek import LocalKms
from falaj.ports.kms import Wrapped

KEY = bytes(range(32))
CONTEXT = {"scope": "artifacts/2026-03", "version": "1", "residency": "ae"}


@pytest.fixture(params=["folder"])
def kms(request, tmp_path):
    return {"folder": lambda: LocalKms(tmp_path / "kek", country="ae")}[request.param]()


# --- the contract ------------------------------------------------------------------------------


def test_what_was_wrapped_comes_back(kms):
    wrapped = kms.wrap(KEY, CONTEXT)
    assert kms.unwrap(wrapped, CONTEXT) == KEY
    assert wrapped.kek == kms.newest()
    assert kms.country == "ae"


def test_the_same_key_is_wrapped_differently_each_time(kms):
    assert kms.wrap(KEY, CONTEXT) != kms.wrap(KEY, CONTEXT)
    assert base64.b64encode(KEY).decode() not in kms.wrap(KEY, CONTEXT).text


CONTEXTS = [
    {},
    {**CONTEXT, "scope": "artifacts/2026-04"},
    {**CONTEXT, "version": "2"},
    {**CONTEXT, "residency": "us"},
    {**CONTEXT, "more": ""},
]


@pytest.mark.parametrize("context", CONTEXTS, ids=["none", "scope", "version", "country", "more"])
def test_another_context_is_refused(kms, context):
    wrapped = kms.wrap(KEY, CONTEXT)
    with pytest.raises(NotAllowed) as caught:
        kms.unwrap(wrapped, context)
    assert caught.value.code == "keys.unwrap"


def test_no_byte_of_a_wrapped_key_is_free(kms):
    wrapped = kms.wrap(KEY, CONTEXT)
    data = base64.b64decode(wrapped.text)
    for place in range(len(data)):
        other = bytearray(data)
        other[place] ^= 1
        with pytest.raises(NotAllowed):
            kms.unwrap(Wrapped(wrapped.kek, base64.b64encode(other).decode()), CONTEXT)
    for text in ("", "AAAA", wrapped.text[:-4], "no base64!", wrapped.text + "AAAA"):
        with pytest.raises(NotAllowed):
            kms.unwrap(Wrapped(wrapped.kek, text), CONTEXT)


def test_after_a_rotation_old_keys_open_and_new_ones_wrap(kms):
    old = kms.wrap(KEY, CONTEXT)
    fresh = kms.rotate()
    assert fresh != old.kek
    assert kms.newest() == fresh
    assert kms.unwrap(old, CONTEXT) == KEY
    assert kms.wrap(KEY, CONTEXT).kek == fresh
    with pytest.raises(NotAllowed):
        kms.unwrap(Wrapped(fresh, old.text), CONTEXT)


def test_what_a_destroyed_key_wrapped_is_gone(kms):
    old = kms.wrap(KEY, CONTEXT)
    kms.rotate()
    kms.destroy(old.kek)
    kms.destroy(old.kek)  # not an error
    with pytest.raises(NotAllowed) as caught:
        kms.unwrap(old, CONTEXT)
    assert caught.value.code == "keys.kek-missing"


def test_the_newest_key_is_not_destroyed(kms):
    kms.rotate()
    with pytest.raises(NotAllowed) as caught:
        kms.destroy(kms.newest())
    assert caught.value.code == "keys.kek-in-use"


@pytest.mark.parametrize("kek", ["", "nobody", "../../etc/passwd", "kek-", "kek-999999"])
def test_an_unknown_key_is_said(kms, kek):
    kms.newest()
    with pytest.raises(NotAllowed) as caught:
        kms.unwrap(Wrapped(kek, "AAAA"), CONTEXT)
    assert caught.value.code == "keys.kek-missing"


def test_many_at_once_agree(kms):
    with ThreadPoolExecutor(4) as pool:
        wrapped = list(pool.map(lambda _: kms.wrap(KEY, CONTEXT), range(16)))
    assert {kms.unwrap(one, CONTEXT) for one in wrapped} == {KEY}


# --- the folder --------------------------------------------------------------------------------


def test_folder_and_files_are_for_this_user_alone(tmp_path):
    LocalKms(tmp_path / "kek", country="ae").rotate()
    assert stat.S_IMODE((tmp_path / "kek").stat().st_mode) == 0o700
    for path in (tmp_path / "kek").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(path.read_bytes()) == 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    kms = LocalKms(tmp_path / "kek", country="ae")
    wrapped = kms.wrap(KEY, CONTEXT)
    (tmp_path / "kek" / f"{wrapped.kek}.key").chmod(mode)
    with pytest.raises(NotAllowed) as caught:
        kms.unwrap(wrapped, CONTEXT)
    assert caught.value.code == "keys.too-open"


def test_a_folder_that_others_may_enter_or_that_is_a_link_is_refused(tmp_path):
    LocalKms(tmp_path / "kek", country="ae")
    (tmp_path / "kek").chmod(0o755)
    with pytest.raises(NotAllowed):
        LocalKms(tmp_path / "kek", country="ae")
    (tmp_path / "kek").chmod(0o700)
    (tmp_path / "linked").symlink_to(tmp_path / "kek")
    with pytest.raises(NotAllowed):
        LocalKms(tmp_path / "linked", country="ae")


def test_a_linked_or_cut_key_is_refused(tmp_path):
    kms = LocalKms(tmp_path / "kek", country="ae")
    wrapped = kms.wrap(KEY, CONTEXT)
    path = tmp_path / "kek" / f"{wrapped.kek}.key"
    path.write_bytes(path.read_bytes()[:31])
    with pytest.raises(NotAllowed):
        kms.unwrap(wrapped, CONTEXT)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotAllowed):
        kms.unwrap(wrapped, CONTEXT)
