"""A store that lies, overwrites or fails: found out, said in words, and nothing of it is kept."""

from __future__ import annotations

from contextlib import closing

import pytest
import stores
from registries import fetch, parcel, push, same
from servers import House
from stores import KEY, OwnStore

from falaj.base import ids
from falaj.base.errors import FalajError, Unverified
from falaj.facts.project import RemoteTable
from falaj.links.s3.client import Credentials
from falaj.links.s3.credentials import store_login
from falaj.links.s3.objects import Objects
from falaj.links.s3.remote import Place, S3Remote, read_place

PLACE = f"s3://{stores.BUCKET}/team/delay"
DIGEST = "sha256:" + "a" * 64


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def made(house):
    return house.release("1.0.0")


@pytest.fixture
def own():
    with closing(OwnStore()) as store:
        yield store


@pytest.fixture
def filled(own, house, made):
    push(house, made, PLACE, store=own)
    own.asked.clear()
    return own


def key(made, path):
    return f"team/delay/{made.id.replace(':', '-')}/{path}"


def refused(house, store, tmp_path, address=PLACE + ":1.0.0", **how):
    how.setdefault("pause", lambda _: None)
    into = tmp_path / "into"
    into.mkdir(exist_ok=True)
    with pytest.raises(FalajError) as caught:
        fetch(house, address, into / "release", store=store, **how)
    assert list(into.iterdir()) == []
    return caught.value


def test_an_honest_one_is_believed(house, made, filled, tmp_path):
    assert fetch(house, PLACE + ":1.0.0", tmp_path / "r", store=filled).release == made.id
    assert same(made.folder, tmp_path / "r")
    assert all("authorization" in headers for _, _, headers in filled.asked)


BENT = {  # what is done to the objects -> code, words
    "a bit of the model": ("model/model.onnx", lambda d: d[:-1] + b"x", "remote.wrong-bytes", "got"),
    "a model that is longer": ("model/model.onnx", lambda d: d + b"x", "remote.wrong-bytes", "got"),
    "a model that is shorter": ("model/model.onnx", lambda d: d[:-1], "remote.wrong-bytes", "got"),
    "no model": ("model/model.onnx", None, "releases.tampered", "model/model.onnx is missing"),
    "another release.json": ("release.json", lambda d: d + b" ", "remote.wrong-bytes", "asked for"),
    "no release.json": ("release.json", None, "remote.not-found", "404"),
    "no signature": ("signature.json", None, "releases.tampered", "signature.json is missing"),
    "another signature": ("signature.json", lambda d: d.replace(b"MEU", b"MEA"), "releases.signature", ""),
    "a file more": ("model/evil.py", lambda _: b"evil", "releases.tampered", "model/evil.py was added"),
    "a signature more": ("signatures/1.json", lambda _: b"{}", "releases.signature", ""),
}  # fmt: skip


@pytest.mark.parametrize(("path", "bend", "code", "words"), BENT.values(), ids=BENT)
def test_objects_that_were_bent(house, made, filled, tmp_path, path, bend, code, words):
    name = key(made, path)
    if bend is None:
        del filled.objects[name]
    else:
        before = filled.objects.get(name, b"")
        filled.objects[name] = bend(before)
        if filled.objects[name] == before:  # the signature is drawn by lot
            filled.objects[name] = before.replace(b'"sig":"', b'"sig":"A')
    error = refused(house, filled, tmp_path)
    assert error.code == code
    assert words in " ".join(f"{p.message} {p.why}" for p in error.problems)
    if code == "releases.tampered":
        assert filled.count("GET", "model.onnx") == 0, "nothing large was asked for"


NAMES = ("../../evil", "a//b", "a\\b", "/etc/passwd", "a:b", "a/../b")


@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_out(house, made, filled, tmp_path, name):
    filled.objects[key(made, name)] = b"evil"
    error = refused(house, filled, tmp_path)
    assert error.code in ("remote.hostile", "releases.tampered")


LISTINGS = {
    "no listing": b"hello",
    "other keys": b"<Contents><Key>other</Key><Size>1</Size></Contents>",
    "no size": b"<Contents><Key>team/delay/x</Key></Contents>",
    "a size that is none": b"<Contents><Key>team/delay/x</Key><Size>-1</Size></Contents>",
    "without an end": b"<NextContinuationToken>1</NextContinuationToken>",
    "too long": b" " * (5 << 20),
}


@pytest.mark.parametrize("body", LISTINGS.values(), ids=LISTINGS)
def test_a_listing_that_is_none(house, filled, tmp_path, body):
    filled.lie("GET", "list-type", lambda h: h.answer(200, body) or True)
    error = refused(house, filled, tmp_path)
    assert error.code in ("remote.hostile", "releases.tampered")


TAGS = (b"", b"sha256:1", b"latest\n", b"\xff" * 72, b"x" * 500)


@pytest.mark.parametrize("body", TAGS)
def test_a_tag_that_names_nothing(house, filled, tmp_path, body):
    filled.objects["team/delay/tags/1.0.0"] = body
    assert refused(house, filled, tmp_path).code == "remote.hostile"


ANSWERS = {
    301: ("remote.hostile", "no honest server"), 403: ("remote.denied", "does not let us in (403)"),
    404: ("remote.not-found", "no tag"), 400: ("remote.refused", "refuses: 400"),
    429: ("remote.busy", "less often"), 503: ("remote.failed", "fails (503)"),
}  # fmt: skip


@pytest.mark.parametrize("status", ANSWERS)
def test_its_errors_are_said_in_words(house, filled, tmp_path, status):
    filled.lie("GET", "tags", lambda h: h.wrong(status, "SomeCode") or True)
    error = refused(house, filled, tmp_path)
    code, words = ANSWERS[status]
    assert error.code == code
    assert words in str(error)


def test_a_stranger_is_refused(house, made, filled, tmp_path):
    other = Credentials("AKIDOTHER", KEY.secret)
    error = refused(house, filled, tmp_path, login=lambda: (other, ""))
    assert error.code == "remote.denied"
    assert "InvalidAccessKeyId" in error.problems[0].why


@pytest.mark.parametrize("peer", ["moto", "rclone"])
def test_a_stranger_is_refused_by_a_real_one(house, made, tmp_path, peer):
    with closing(getattr(stores, peer)(tmp_path / peer)) as store:
        push(house, made, PLACE, store=store)
        for other in (
            Credentials(store.credentials.key, "wrong"),
            Credentials("AKIDOTHER", store.credentials.secret),
        ):
            error = refused(house, store, tmp_path, login=lambda other=other: (other, ""))
            assert error.code in ("remote.denied", "remote.refused"), error
            assert store.credentials.secret not in repr(error.problems)


PROMISES = {"moto": False, "rclone": False, "own": True}


@pytest.mark.parametrize("peer", PROMISES)
def test_who_looks_at_the_content(tmp_path, peer):
    """moto and rclone take other bytes than were signed, so what lies there is read again."""
    make = {"moto": stores.moto, "rclone": stores.rclone, "own": lambda _: OwnStore()}[peer]
    with closing(make(tmp_path / peer)) as store:
        objects = Objects(
            store.endpoint, stores.BUCKET, lambda: (store.credentials, ""), region="us-east-1"
        )
        assert objects.probe_content(f"probe/{ids.new()}") is PROMISES[peer]
        assert objects.listed("probe/") == {}, "nothing stays"
        objects.close()


def test_a_store_that_takes_other_bytes_is_found_out(house, made):
    with closing(OwnStore(checks=False)) as store:

        def lie(h):
            h.body = h.body[:-1] + b"x" if h.body else h.body
            return False

        store.lie("PUT", "model.onnx", lie)
        with pytest.raises(Unverified) as caught:
            push(house, made, PLACE, store=store)
    assert caught.value.code == "remote.wrong-bytes"
    assert not any(name.endswith(("release.json", "tags/1.0.0")) for name in store.objects)


@pytest.mark.parametrize("bend", [lambda d: d[:-1] + b"x", lambda d: d + b"x"])
def test_what_lies_there_already_has_to_be_the_same(house, made, filled, bend):
    name = key(made, "model/model.onnx")
    filled.objects[name] = bend(filled.objects[name])
    with pytest.raises(Unverified) as caught:
        push(house, made, PLACE, store=filled)
    assert caught.value.code == "remote.wrong-bytes"


def test_two_that_write_one_tag(house, made, own):
    """The other one is quicker between our look and our write."""
    other = f"sha256:{'5' * 64}\n".encode()
    own.lie(
        "PUT", "tags/", lambda _: own.objects.setdefault("team/delay/tags/1.0.0", other) is None
    )
    with pytest.raises(FalajError) as caught:
        push(house, made, PLACE, store=own)
    assert caught.value.code == "remote.tag-taken"
    assert own.objects["team/delay/tags/1.0.0"] == other


def test_a_line_that_breaks(house, made, filled, tmp_path):
    once = iter([1])

    def cut(h):
        if next(once, None) is None:
            return False
        data = filled.objects[key(made, "model/model.onnx")]
        h.send_response(200)
        h.send_header("Content-Length", str(len(data)))
        h.end_headers()
        h.wfile.write(data[:99])
        h.close_connection = True
        return True

    filled.lie("GET", "model.onnx", cut)
    found = fetch(house, PLACE + ":1.0.0", tmp_path / "r", store=filled, pause=lambda _: None)
    assert found.release == made.id


def test_killed_in_the_middle_there_is_no_release(house, made, own, tmp_path):
    """All but release.json is there: nobody finds a release, and the next push brings the rest."""
    own.lie("PUT", "release.json", lambda h: h.wrong(403, "AccessDenied") or True)
    with pytest.raises(FalajError):
        push(house, made, PLACE, store=own)
    assert refused(house, own, tmp_path).code == "remote.not-found"
    own.lies.clear()
    assert push(house, made, PLACE, store=own).sent == 1
    assert fetch(house, PLACE + ":1.0.0", tmp_path / "r", store=own).release == made.id


def test_a_file_that_is_too_large_for_one_piece(house, made, own, tmp_path):
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate((5 << 30) + 1)
    files = {**parcel(made).files}
    told = parcel(made)
    odd = type(told)(
        id=told.id, model="m", version="9", created=told.created,
        files={**files, "model/a": huge}, digests={**told.digests, "model/a": DIGEST},
    )  # fmt: skip
    remote = S3Remote(PLACE, own.endpoint, login=lambda: (KEY, ""))
    with closing(remote), pytest.raises(FalajError) as caught:
        remote.push(odd, lambda *_: None)
    assert caught.value.code == "remote.too-large"


# --- addresses and names --------------------------------------------------------------------------

GOOD = {
    "s3://bucket/a": Place("bucket", "a"),
    "s3://bucket/a/b:1.0": Place("bucket", "a/b", "1.0"),
    f"s3://my.bucket/a@{DIGEST}": Place("my.bucket", "a", "", DIGEST),
}


@pytest.mark.parametrize(("text", "place"), GOOD.items())
def test_an_address(text, place):
    assert read_place(text) == place


BAD = (
    "s3://", "s3://bucket", "s3://bucket/", "s3://b/a", "s3://BUCKET/a", "s3://bucket/../a",
    "s3://bucket/a/../b", "s3://bucket/a b", "s3://bucket/a:", "s3://bucket/a@sha256:1", "s3:/a",
    "s3://bucket//a", "s3://bucket/a?x", "s3://key:secret@bucket/a", "s3://bucket/-a", "oci://b/a",
)  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_is_none(text):
    with pytest.raises(FalajError) as caught:
        read_place(text)
    assert caught.value.code == "remote.bad-address"


ENDPOINTS = {
    "": "remote.bad-address", "ftp://x": "remote.bad-address", "https://": "remote.bad-address",
    "https://a:b@store.example": "remote.bad-address", "http://192.0.2.1": "remote.plain-http",
    "http://localhost.evil.example": "remote.plain-http",
}  # fmt: skip


@pytest.mark.parametrize(("endpoint", "code"), ENDPOINTS.items())
def test_a_store_that_is_not_spoken_to(endpoint, code):
    with pytest.raises(FalajError) as caught:
        S3Remote(PLACE, endpoint)
    assert caught.value.code == code
    assert "a:b" not in str(caught.value)


def test_a_bucket_in_the_project_needs_its_store():
    with pytest.raises(ValueError, match="endpoint"):
        RemoteTable(address="s3://bucket", region="ae")


def profile(tmp_path, text):
    path = tmp_path / "credentials"
    path.write_text(text)
    return {"AWS_SHARED_CREDENTIALS_FILE": str(path), "HOME": "/nowhere"}


TWO = (
    "[default]\naws_access_key_id = a\naws_secret_access_key = b%c\n"
    "[other]\naws_access_key_id = d\naws_secret_access_key = e\naws_session_token = f\n"
)


def test_who_we_are(tmp_path):
    environ = profile(tmp_path, TWO)
    assert store_login(environ) == (Credentials("a", "b%c"), "")
    assert store_login({**environ, "AWS_PROFILE": "other"}) == (Credentials("d", "e"), "f")
    pair = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    assert store_login({**environ, **pair}) == (Credentials("x", "y"), "")


@pytest.mark.parametrize(
    "text", ["", "[default]\n", "[other]\na = b\n", "hello", "[default]\naws_access_key_id=a"]
)
def test_a_file_that_does_not_say_it(tmp_path, text):
    with pytest.raises(FalajError) as caught:
        store_login(profile(tmp_path, text))
    assert caught.value.code == "remote.bad-credentials"


def test_nobody_says_it(tmp_path):
    with pytest.raises(FalajError):
        store_login({"HOME": str(tmp_path)})
