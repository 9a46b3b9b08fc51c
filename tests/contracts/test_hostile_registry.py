"""A registry that lies, fails or sends us elsewhere: said in words, and nothing of it is kept."""

from __future__ import annotations

import json
import pickle
import re
import ssl
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import msgspec
import pytest
from registries import (
    PASSWORD,
    USER,
    OwnRegistry,
    basic,
    digest_of,
    fetch,
    parcel,
    push,
    same,
    signing,
)
from servers import House

from falaj.base import dsse
from falaj.base.errors import Conflict, FalajError, Unverified
from falaj.facts.releases import Revocation, RevocationKind
from falaj.journeys.remotes import pull
from falaj.links.oci.credentials import Login
from falaj.links.oci.registry import OciRemote

MODEL = "model/model.onnx"


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def made(house):
    return house.release("1.0.0")


@pytest.fixture
def own():
    with closing(OwnRegistry()) as registry:
        yield registry


@pytest.fixture
def address(own, house, made):
    """One honest release in it, by tag."""
    push(house, made, f"oci://{own.host}/team/delay")
    own.asked.clear()
    return f"oci://{own.host}/team/delay:1.0.0"


def manifest(own):
    return json.loads(own.manifests["1.0.0"])


def title(layer):
    return layer["annotations"]["org.opencontainers.image.title"]


def piece(own, path):
    return next(layer for layer in manifest(own)["layers"] if title(layer) == path)


def retag(own, told):
    data = told if isinstance(told, bytes) else json.dumps(told).encode()
    own.put(data, "1.0.0")


def refused(house, address, tmp_path, **how):
    """The error; and nothing is left, neither the folder nor a half of it."""
    how.setdefault("pause", lambda _: None)
    into = tmp_path / "into"
    into.mkdir(exist_ok=True)
    with pytest.raises(FalajError) as caught:
        fetch(house, address, into / "release", **how)
    assert list(into.iterdir()) == []
    assert all(p.message for p in caught.value.problems)
    return caught.value


def test_an_honest_one_is_believed(house, made, address, tmp_path):
    assert fetch(house, address, tmp_path / "r").release == made.id
    assert same(made.folder, tmp_path / "r")


# --- the manifest ------------------------------------------------------------------------------


def layers(change):
    def bend(own):
        told = manifest(own)
        told["layers"] = change(told["layers"])
        return told

    return bend


def renamed(name):
    def change(found):
        found[0]["annotations"] = {"org.opencontainers.image.title": name}
        return found

    return layers(change)


def with_field(**fields):
    return lambda own: {**manifest(own), **fields}


def first_with(**fields):
    return layers(lambda found: [{**found[0], **fields}, *found[1:]])


def swapped(found):
    one, two = found[0], found[1]
    return [
        {**one, "digest": two["digest"], "size": two["size"]},
        {**two, "digest": one["digest"], "size": one["size"]},
        *found[2:],
    ]


def extra(found):
    return [
        *found,
        {**found[0], "annotations": {"org.opencontainers.image.title": "model/evil.py"}},
    ]


def without(name):
    return layers(lambda found: [layer for layer in found if title(layer) != name])


BENT = {  # what the tag's manifest says -> code, words
    "a layer more": (layers(extra), "releases.tampered", "model/evil.py was added"),
    "a layer less": (without(MODEL), "releases.tampered", f"{MODEL} is missing"),
    "without release.json": (without("release.json"), "releases.tampered", "release.json is missing"),
    "without signature": (without("signature.json"), "releases.tampered", "signature.json is missing"),
    "two files exchanged": (layers(swapped), "releases.tampered", "was changed"),
    "a file twice": (layers(lambda f: [*f, f[0]]), "remote.hostile", "stands twice"),
    "a path that leads out": (renamed("../../evil"), "remote.hostile", "not a plain relative path"),
    "an absolute path": (renamed("/etc/passwd"), "remote.hostile", "not a plain relative path"),
    "a path inside that leads out": (renamed("a/../../b"), "remote.hostile", "not a plain"),
    "a drive": (renamed("c:evil"), "remote.hostile", "backslash or a colon"),
    "a backslash": (renamed("..\\evil"), "remote.hostile", "backslash or a colon"),
    "a line break": (renamed("a\nb"), "remote.hostile", "control"),
    "the same name in capitals": (renamed("RELEASE.JSON"), "remote.hostile", "one file elsewhere"),
    "a folder that is a file": (renamed("release.json/x"), "remote.hostile", "one file elsewhere"),
    "another kind of artifact": (with_field(artifactType="x/y"), "remote.not-a-release", "artifactType"),
    "an image": (with_field(config={"digest": "sha256:" + "1" * 64}), "remote.not-a-release", "config"),
    "a field more": (with_field(subject={}), "remote.not-a-release", "fields"),
    "a list of images": (lambda _: {"schemaVersion": 2, "manifests": []}, "remote.not-a-release", "not"),
    "no JSON": (lambda _: b"<html>", "remote.not-a-release", "not JSON"),
    "a key twice": (lambda _: b'{"layers":[],"layers":[]}', "remote.not-a-release", "stands twice"),
    "a layer from elsewhere": (first_with(urls=["http://127.0.0.1/x"]), "remote.not-a-release", "layer 1"),
    "a layer of another kind": (first_with(mediaType="text/x"), "remote.not-a-release", "layer 1"),
    "a digest of another form": (first_with(digest="md5:1"), "remote.not-a-release", "no SHA-256"),
    "a size below zero": (first_with(size=-1), "remote.not-a-release", "layer 1"),
    "a size that no disk has": (first_with(size=1 << 50), "remote.not-a-release", "GiB"),
    "too many files": (layers(lambda f: f * 3000), "remote.not-a-release", "at most"),
}  # fmt: skip


@pytest.mark.parametrize(("bend", "code", "words"), BENT.values(), ids=BENT)
def test_a_manifest_that_was_bent(house, own, address, tmp_path, bend, code, words):
    model = piece(own, MODEL)["digest"]
    retag(own, bend(own))
    error = refused(house, address, tmp_path)
    assert error.code == code
    said = " ".join(f"{p.message} {p.why}" for p in error.problems)
    assert words in said
    assert own.count("GET", f"blobs/{model}") == 0, "nothing large was asked for"


def test_a_release_larger_than_the_disk(house, own, address, tmp_path):
    told = manifest(own)
    told["layers"][0]["size"] = 1 << 39
    retag(own, told)
    assert refused(house, address, tmp_path).code == "remote.too-large"
    assert own.count("GET", "/blobs/") <= 1, "at most the signature beside it"


def test_evidence_larger_than_what_is_read_unverified(house, own, address, tmp_path):
    told = manifest(own)
    for layer in told["layers"]:
        if title(layer) == "signature.json":
            layer["size"] = 65 << 20
    retag(own, told)
    assert refused(house, address, tmp_path).code == "remote.too-large"


def test_another_manifest_under_the_digest_that_was_asked_for(house, own, address, tmp_path):
    asked = digest_of(own.manifests["1.0.0"])
    own.manifests[asked] = own.manifests["1.0.0"] + b" "
    by_digest = address.replace(":1.0.0", f"@{asked}")
    error = refused(house, by_digest, tmp_path)
    assert error.code == "remote.wrong-bytes"
    assert asked in error.problems[0].why


def test_a_header_that_tells_another_digest_than_the_bytes(house, own, address, tmp_path):
    def lie(h):
        h.answer(200, own.manifests["1.0.0"], Docker_Content_Digest="sha256:" + "6" * 64)
        return True

    own.lie("GET", "manifests/1.0.0", lie)
    assert refused(house, address, tmp_path).code == "remote.wrong-bytes"


def test_a_manifest_without_an_end(house, own, address, tmp_path):
    def lie(h):
        h.answer(200, b" " * (5 << 20))
        return True

    own.lie("GET", "manifests/1.0.0", lie)
    assert refused(house, address, tmp_path).code == "remote.hostile"


def test_an_older_release_under_the_tag_is_said(house, own, address, made, tmp_path):
    """Both are signed; only the digest tells them apart, and so it is said."""
    older = digest_of(own.manifests["1.0.0"])
    other = house.release("1.2.0", threshold="0.125")
    push(house, other, f"oci://{own.host}/team/delay:latest")
    own.put(own.manifests[older], "latest")
    found = fetch(house, f"oci://{own.host}/team/delay:latest", tmp_path / "r")
    assert found.asked == "latest"
    assert found.address.endswith(older)
    assert found.release == made.id


# --- the bytes ----------------------------------------------------------------------------------

BYTES = {  # what comes for the model -> code
    "other bytes": (lambda data: b"x" * len(data), "remote.wrong-bytes"),
    "one bit": (lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:], "remote.wrong-bytes"),
    "too few": (lambda data: data[:-1], "remote.wrong-bytes"),
    "none": (lambda _: b"", "remote.wrong-bytes"),
    "one too many": (lambda data: data + b"x", "remote.hostile"),
    "far too many": (lambda data: data * 100, "remote.hostile"),
}


@pytest.mark.parametrize(("bend", "code"), BYTES.values(), ids=BYTES)
@pytest.mark.parametrize("path", [MODEL, "signature.json", "release.json"])
def test_a_file_that_was_bent(house, own, address, tmp_path, path, bend, code):
    digest = piece(own, path)["digest"]
    own.blobs[digest] = bend(own.blobs[digest])
    assert refused(house, address, tmp_path).code == code


def test_a_file_that_is_not_there(house, own, address, tmp_path):
    del own.blobs[piece(own, MODEL)["digest"]]
    assert refused(house, address, tmp_path).code == "remote.not-found"


def test_packed_answers(house, own, address, tmp_path):
    def lie(h):
        h.answer(200, b"x", Content_Encoding="gzip")
        return True

    own.lie("GET", "/blobs/", lie)
    assert refused(house, address, tmp_path).code == "remote.hostile"


def test_a_release_of_somebody_else(house, own, made, tmp_path):
    """Whole and signed, but by nobody whom we know."""
    other = House(tmp_path)
    forged = other.release("1.0.0")
    push(other, forged, f"oci://{own.host}/team/forged")
    error = refused(house, f"oci://{own.host}/team/forged:1.0.0", tmp_path)
    assert error.code == "remote.signature"
    own.referrers = False
    for reference in [r for r in own.manifests if r.startswith("sha256-")]:
        del own.manifests[reference]
    error = refused(house, f"oci://{own.host}/team/forged:1.0.0", tmp_path)
    assert error.code == "releases.signature"


def test_a_release_that_was_withdrawn(house, own, address, made, tmp_path):
    """Revoked after it was brought there: refused before a large file is asked for."""
    now = datetime.now(UTC)
    gone = Revocation(kind=RevocationKind.WITHDRAWN, subject=made.id, reason="wrong data")
    trust = msgspec.structs.replace(house.ring.trust(), revocations=(gone,))
    with closing(OciRemote(address)) as remote, pytest.raises(Unverified) as caught:
        pull(remote, tmp_path / "r", trust, now=now)
    assert caught.value.code == "releases.withdrawn"
    assert "wrong data" in str(caught.value)
    assert own.count("GET", f"blobs/{piece(own, MODEL)['digest']}") == 0
    assert list(tmp_path.iterdir()) == []


def test_the_key_of_the_signer_is_in_other_hands(house, own, address, tmp_path):
    trust = house.ring.trust()
    hint = next(dsse.hint_of(k.public.encode()) for k in trust.keys if k.identity == "releaser")
    bad = Revocation(kind=RevocationKind.COMPROMISED, subject=hint)
    trust = msgspec.structs.replace(trust, revocations=(bad,))
    with closing(OciRemote(address)) as remote, pytest.raises(Unverified) as caught:
        pull(remote, tmp_path / "r", trust, now=datetime.now(UTC))
    assert caught.value.code == "remote.signature"
    assert own.count("GET", f"blobs/{piece(own, MODEL)['digest']}") == 0


def test_a_signer_who_has_retired_since(house, own, address, made, tmp_path):
    """What was signed before stays good, the signature beside it as well."""
    trust = house.ring.trust()
    hint = next(dsse.hint_of(k.public.encode()) for k in trust.keys if k.identity == "releaser")
    since = datetime.now(UTC) + timedelta(seconds=1)
    old = Revocation(kind=RevocationKind.RETIRED, subject=hint, since=since)
    trust = msgspec.structs.replace(trust, revocations=(old,))
    with closing(OciRemote(address)) as remote:
        found = pull(remote, tmp_path / "r", trust, now=since + timedelta(days=1))
    assert (found.release, found.outer) == (made.id, "releaser")


def test_an_old_list_of_revocations(house, own, address, tmp_path):
    now = datetime.now(UTC)
    trust = msgspec.structs.replace(house.ring.trust(), next_update=now - timedelta(days=1))
    with closing(OciRemote(address)) as remote, pytest.raises(Unverified) as caught:
        pull(remote, tmp_path / "r", trust, now=now)
    assert caught.value.code == "releases.revocations-stale"


def test_a_pickle_that_was_signed_is_not_kept(house, own, tmp_path):
    """Signed by a key that we trust, and all the same no format that a server loads."""
    evil = house.release("6.6.6", onnx_bytes=pickle.dumps({"a": 1}))
    push(house, evil, f"oci://{own.host}/team/delay")
    error = refused(house, f"oci://{own.host}/team/delay:6.6.6", tmp_path)
    assert error.code == "releases.format"
    assert "model/model.onnx" in str(error)


ENVELOPES = {
    "by a key of another role": {"signer": "planner"},
    "over another manifest": {"about": "sha256:" + "4" * 64},
}


@pytest.mark.parametrize("how", ENVELOPES.values(), ids=ENVELOPES)
def test_a_signature_over_the_manifest_that_does_not_hold(house, own, made, tmp_path, how):
    with closing(OciRemote(f"oci://{own.host}/team/delay")) as remote:
        remote.push(parcel(made), signing(house, made, **how))
    error = refused(house, f"oci://{own.host}/team/delay:1.0.0", tmp_path)
    assert error.code == "remote.signature"
    model = digest_of((made.folder / MODEL).read_bytes())
    assert own.count("GET", f"blobs/{model}") == 0, "nothing large was asked for"


JUNK = (b"", b"{}", b"[]", b'{"manifests":3}', b'{"manifests":[3,{"digest":"x"}]}', b"\xff")


@pytest.mark.parametrize("junk", JUNK)
def test_a_list_of_signatures_that_is_none(house, own, address, made, tmp_path, junk):
    """Then there is no signature beside it; the one inside the release holds, and it is said."""
    (tag,) = [reference for reference in own.manifests if reference.startswith("sha256-")]
    own.put(junk, tag)
    found = fetch(house, address, tmp_path / "r")
    assert (found.release, found.outer) == (made.id, "")


def test_a_disk_that_holds_the_folder_already(house, own, address, tmp_path):
    (tmp_path / "r").mkdir()
    with pytest.raises(Conflict) as caught:
        fetch(house, address, tmp_path / "r")
    assert caught.value.code == "remote.folder-exists"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Conflict):
        fetch(house, address, tmp_path / "link")


# --- where it sends us ---------------------------------------------------------------------------


def to(place):
    def lie(h):
        h.answer(307, Location=place.replace("PATH", h.path))
        return True

    return lie


AWAY = {  # the blob is elsewhere -> words
    "TLS where there was none": ("https://127.0.0.1:1/x", "points from http to"),
    "another scheme": ("ftp://127.0.0.1/x", "points from http to"),
    "a file": ("file:///etc/passwd", "points from http to"),
    "another machine in the clear": ("http://192.0.2.1/x", "in the clear to another machine"),
    "with a name": ("http://a:b@127.0.0.1/x", "points from http to"),
    "round and round": ("PATH", "points at another address"),
}


@pytest.mark.parametrize(("place", "words"), AWAY.values(), ids=AWAY)
def test_a_blob_that_is_elsewhere(house, own, address, tmp_path, place, words):
    own.lie("GET", f"blobs/{piece(own, MODEL)['digest']}", to(place))
    error = refused(house, address, tmp_path)
    assert error.code == "remote.hostile"
    assert words in error.problems[0].why


def test_a_manifest_is_where_it_is_or_nowhere(house, own, address, tmp_path):
    own.lie("GET", "manifests/", to("http://127.0.0.1:1/x"))
    assert refused(house, address, tmp_path).code == "remote.hostile"


def test_a_storage_of_its_own_is_not_told_who_we_are(house, own, address, made, tmp_path):
    own.auth = "basic"
    with closing(OwnRegistry()) as storage:
        storage.blobs = own.blobs
        own.lie("GET", "/blobs/", to(f"http://{storage.host}PATH"))
        found = fetch(house, address, tmp_path / "r", credentials=lambda _: Login(USER, PASSWORD))
        assert found.release == made.id
        assert storage.asked
        assert all("Authorization" not in headers for _, _, headers in storage.asked)
        assert all(h.get("Authorization") == basic() for _, _, h in own.asked[1:])


PLACES = {
    "another machine": "http://192.0.2.1/v2/team/delay/blobs/uploads/1",
    "TLS": "https://127.0.0.1/upload",
    "nowhere": "",
    "a neighbour whose name begins alike": "http://127.0.0.1:HOST1/upload",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_an_upload_that_is_to_go_elsewhere(house, own, made, place):
    def lie(h):
        h.answer(202, Location=place.replace("HOST1", own.host.rpartition(":")[2] + "1"))
        return True

    own.lie("POST", "uploads", lie)
    with pytest.raises(Unverified) as caught:
        push(house, made, f"oci://{own.host}/team/delay")
    assert caught.value.code == "remote.hostile"
    assert own.count("PUT", "") == 0


REALMS = {
    "in the clear": "http://192.0.2.1/token",
    "another scheme": "file:///etc/passwd",
    "with a name": "https://a:b@127.0.0.1/token",
    "nothing": "x",
}


@pytest.mark.parametrize("realm", REALMS.values(), ids=REALMS)
def test_a_token_that_is_to_be_fetched_elsewhere(house, own, address, tmp_path, realm):
    own.auth, own.realm = "bearer", realm
    error = refused(house, address, tmp_path, credentials=lambda _: Login(USER, PASSWORD))
    assert error.code == "remote.hostile"


TOKENS = {
    "no JSON": b"token",
    "none": b"{}",
    "a list": b"[]",
    "with a line break": b'{"token":"a\\r\\nX-Evil: 1"}',
    "without an end": b'{"token":"' + b"x" * (1 << 17) + b'"}',
}


@pytest.mark.parametrize("body", TOKENS.values(), ids=TOKENS)
def test_a_token_that_is_none(house, own, address, tmp_path, body):
    def lie(h):
        h.answer(200, body)
        return True

    own.auth = "bearer"
    own.lie("GET", "/token", lie)
    error = refused(house, address, tmp_path, credentials=lambda _: Login(USER, PASSWORD))
    assert error.code == "remote.hostile"


# --- who we are ----------------------------------------------------------------------------------


@pytest.mark.parametrize("login", [Login(USER, PASSWORD), Login(identity="identity")])
@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_with_a_name(house, own, made, tmp_path, auth, login):
    if login.identity and auth == "basic":
        own.lie("POST", "/token", lambda h: own.token(h, {}) or True)
        auth = "bearer"
    if login.identity:
        own.lie("POST", "/token", lambda h: own.token(h, {}) or True)
    own.auth = auth
    done = push(house, made, f"oci://{own.host}/team/delay", credentials=lambda _: login)
    assert (
        fetch(house, done.address, tmp_path / "r", credentials=lambda _: login).release == made.id
    )


def test_a_token_that_runs_out_in_the_middle(house, own, address, made, tmp_path):
    own.auth = "bearer"
    turns = iter(range(1000))

    def lie(h):
        if next(turns) % 3 == 2:
            own.tokens += 1  # what we hold is worth nothing any more
        return False

    own.lie("GET", "/v2/", lie)
    found = fetch(house, address, tmp_path / "r", credentials=lambda _: Login(USER, PASSWORD))
    assert found.release == made.id


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("login", [None, Login(USER, "wrong")], ids=["nobody", "wrong"])
def test_without_the_right_name(house, own, address, tmp_path, auth, login):
    own.auth = auth
    error = refused(house, address, tmp_path, credentials=lambda _: login)
    assert error.code == "remote.denied"
    assert "wrong" not in str(error.problems)


# --- what it answers -----------------------------------------------------------------------------

ANSWERS = {
    401: ("remote.denied", "does not let us in (401), without a name"),
    403: ("remote.denied", "does not let us in (403)"),
    404: ("remote.not-found", "has nothing there (404)"),
    405: ("remote.refused", "refuses: 405"),
    429: ("remote.busy", "come less often"),
    500: ("remote.failed", "fails (500)"),
    503: ("remote.failed", "fails (503)"),
    302: ("remote.hostile", "no honest server"),
}


@pytest.mark.parametrize("status", ANSWERS)
def test_its_errors_are_said_in_words(house, own, address, tmp_path, status):
    def lie(h):
        h.wrong(status, "SOME_CODE", Location="http://127.0.0.1:1/")
        return True

    own.lie("GET", "manifests/1.0.0", lie)
    error = refused(house, address, tmp_path, credentials=lambda _: None)
    code, words = ANSWERS[status]
    assert error.code == code
    assert words in str(error)
    assert error.problems[0].fix
    if status != 302:
        assert "SOME_CODE some_code" in error.problems[0].why


WORDS = (b"<html>", b"\xff\xfe", b'{"errors":[]}', b'{"errors":3}', b"[" * 100_000, b"x" * 200_000)


@pytest.mark.parametrize("body", WORDS, ids=range(len(WORDS)))
def test_words_of_a_stranger_never_break_ours(house, own, address, tmp_path, body):
    def lie(h):
        h.answer(500, body)
        return True

    own.lie("GET", "manifests/1.0.0", lie)
    assert refused(house, address, tmp_path).code == "remote.failed"


def test_colours_and_bells_of_a_stranger_are_not_printed(house, own, address, tmp_path):
    def lie(h):
        h.answer(
            400, json.dumps({"errors": [{"code": "A\x1b[31m", "message": "\a\r\nb"}]}).encode()
        )
        return True

    own.lie("GET", "manifests/1.0.0", lie)
    assert "A [31m b" in refused(house, address, tmp_path).problems[0].why


def test_silence(house, own, address, tmp_path):
    def lie(h):
        time.sleep(1.5)
        return True

    own.lie("GET", "manifests/1.0.0", lie)
    error = refused(house, address, tmp_path, silence_s=0.2)
    assert error.code == "remote.unreachable"


def test_nobody(house, tmp_path):
    error = refused(house, "oci://127.0.0.1:1/team/delay:1", tmp_path)
    assert error.code == "remote.unreachable"


# --- patience ------------------------------------------------------------------------------------


def times(number, status, **headers):
    """Fails so often, then does what it should."""
    left = iter(range(number))

    def lie(h):
        if next(left, None) is None:
            return False
        h.wrong(status, "TOOMANYREQUESTS", **headers)
        return True

    return lie


def test_a_pause_that_it_asks_for_is_made(house, own, address, made, tmp_path):
    own.lie("GET", "manifests/1.0.0", times(2, 429, Retry_After="7"))
    pauses = []
    assert fetch(house, address, tmp_path / "r", pause=pauses.append).release == made.id
    assert pauses == [7, 7]


def test_a_pause_that_is_too_long_is_said(house, own, address, tmp_path):
    own.lie("GET", "manifests/1.0.0", times(9, 429, Retry_After="3600"))
    pauses = []
    assert refused(house, address, tmp_path, pause=pauses.append).code == "remote.busy"
    assert pauses == []


def cut(own, digest, after):
    """The line breaks behind so many bytes, once."""
    once = iter([1])

    def lie(h):
        if next(once, None) is None:
            return False
        data = own.blobs[digest]
        h.send_response(200)
        h.send_header("Content-Length", str(len(data)))
        h.end_headers()
        h.wfile.write(data[:after])
        h.wfile.flush()
        h.close_connection = True
        return True

    return lie


@pytest.mark.parametrize("parts", [True, False], ids=["gives parts", "gives all again"])
def test_a_line_that_breaks(house, own, address, made, tmp_path, parts):
    digest = piece(own, MODEL)["digest"]
    own.lie("GET", f"blobs/{digest}", cut(own, digest, 300))
    if not parts:
        own.lie("GET", f"blobs/{digest}", lambda h: h.answer(200, own.blobs[digest]) or True)
    assert fetch(house, address, tmp_path / "r", pause=lambda _: None).release == made.id
    assert same(made.folder, tmp_path / "r")
    asked = [h.get("Range") for m, p, h in own.asked if m == "GET" and digest in p]
    assert asked == [None, "bytes=300-"]


def test_another_part_than_was_asked_for(house, own, address, tmp_path):
    digest = piece(own, MODEL)["digest"]
    own.lie("GET", f"blobs/{digest}", cut(own, digest, 300))
    told = f"bytes 301-{len(own.blobs[digest]) - 1}/{len(own.blobs[digest])}"
    own.lie("GET", digest, lambda h: h.answer(206, b"x", Content_Range=told) or True)
    assert refused(house, address, tmp_path).code == "remote.hostile"


def test_an_upload_that_fails_is_made_again(house, own, made, tmp_path):
    own.lie("PUT", "uploads", times(2, 500))
    done = push(house, made, f"oci://{own.host}/team/delay", pause=lambda _: None)
    assert fetch(house, done.address, tmp_path / "r").release == made.id


def test_an_upload_whose_answer_is_lost_is_not_made_again(house, own, made):
    lost = iter([1])

    def lie(h):
        if next(lost, None) is None:
            return False
        digest = re.search("digest=sha256%3A([0-9a-f]{64})", h.path)[1]
        own.blobs[f"sha256:{digest}"] = h.body
        h.close_connection = True
        return True

    own.lie("PUT", "uploads", lie)
    done = push(house, made, f"oci://{own.host}/team/delay", pause=lambda _: None)
    assert own.count("PUT", "uploads") == done.sent + 2, "each once: files, config, signature"


def test_it_gives_up_in_the_end(house, own, made):
    own.lie("PUT", "uploads", times(99, 500))
    with pytest.raises(FalajError) as caught:
        push(house, made, f"oci://{own.host}/team/delay", pause=lambda _: None)
    assert caught.value.code == "remote.failed"
    assert own.count("PUT", "manifests") == 0, "no manifest without its files"


LIES = {
    "takes other bytes": ("PUT", "uploads", lambda h: h.answer(201, Docker_Content_Digest="sha256:1")),
    "another size": ("HEAD", "blobs/sha256", lambda h: h.answer(200, Content_Length="5000000")),
    "forgets manifests": ("GET", "manifests/sha256:", lambda h: h.answer(200, b"{}")),
    "takes another manifest": (
        "PUT", "manifests", lambda h: h.answer(201, Docker_Content_Digest="sha256:" + "1" * 64),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("method", "path", "lie"), LIES.values(), ids=LIES)
def test_a_push_that_it_lies_about(house, own, made, method, path, lie):
    own.lie(method, path, lambda h: lie(h) or True)
    with pytest.raises(Unverified) as caught:
        push(house, made, f"oci://{own.host}/team/delay")
    assert caught.value.code in ("remote.hostile", "remote.wrong-bytes")
    assert "1.0.0" not in own.manifests, "no tag names what is not whole"


def test_a_signature_list_that_forgets_is_told(house, own, made):
    def lie(h):
        h.answer(201)
        return True

    own.lie("PUT", "manifests/sha256-", lie)
    with pytest.raises(Unverified):
        push(house, made, f"oci://{own.host}/team/delay")
    assert "1.0.0" not in own.manifests


def test_a_file_that_shrinks_while_it_is_sent(house, own, made, tmp_path):
    files = dict(parcel(made).files)
    short = tmp_path / "short"
    short.write_bytes(b"x" * 100)
    one = parcel(made, files={**files, MODEL: short})
    own.lie("POST", "uploads", lambda _: short.write_bytes(b"x") and False)
    remote = OciRemote(f"oci://{own.host}/team/delay")
    with closing(remote), pytest.raises(Unverified) as caught:
        remote.push(one, lambda *_: None)
    assert caught.value.code == "remote.changed"
    assert "1.0.0" not in own.manifests


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """127.0.0.1's, by an authority of its own."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "registry")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "pair.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def secure(certificate):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with closing(OwnRegistry(tls=tls)) as registry:
        yield registry


def test_who_cannot_show_a_name_is_not_spoken_to(house, secure, tmp_path):
    error = refused(house, f"oci://{secure.host}/team/delay:1", tmp_path, plain_http=False)
    assert error.code == "remote.bad-certificate"
    assert secure.asked == []


PULL = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path
from contextlib import closing
from falaj.facts.trust import open_trust
from falaj.journeys.remotes import pull
from falaj.links.oci.registry import OciRemote
address, trust, folder = sys.argv[1:]
now = datetime.now(UTC)
from falaj.base.errors import FalajError
try:
    with closing(OciRemote(address, plain_http=False)) as remote:
        print(pull(remote, Path(folder), open_trust(Path(trust).read_bytes(), now=now), now=now).release)
except FalajError as error:
    print(error.code, error.problems[0].why)
"""


def pulled_over_tls(house, address, certificate, folder):
    """In a process of its own: the authorities are read from the environment at its start."""
    words = [sys.executable, "-c", PULL, address, str(house.trust), str(folder)]
    env = {"SSL_CERT_FILE": str(certificate), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_authority_of_ones_own(house, own, address, made, secure, certificate, tmp_path):
    secure.blobs, secure.manifests, secure.kinds = own.blobs, own.manifests, own.kinds
    at = f"oci://{secure.host}/team/delay:1.0.0"
    assert pulled_over_tls(house, at, certificate, tmp_path / "r") == made.id


def test_from_tls_into_the_clear_is_never_followed(
    house, own, address, secure, certificate, tmp_path
):
    secure.blobs, secure.manifests, secure.kinds = own.blobs, own.manifests, own.kinds
    secure.lie("GET", "/blobs/", to(f"http://{own.host}PATH"))
    own.asked.clear()
    at = f"oci://{secure.host}/team/delay:1.0.0"
    said = pulled_over_tls(house, at, certificate, tmp_path / "r")
    assert said.startswith("remote.hostile"), said
    assert "points from https to" in said
    assert own.asked == []


def test_a_token_in_the_clear_is_never_fetched(house, own, address, secure, certificate, tmp_path):
    secure.auth, secure.realm = "bearer", f"http://{own.host}/token"
    own.asked.clear()
    said = pulled_over_tls(house, f"oci://{secure.host}/a:1", certificate, tmp_path / "r")
    assert said.startswith("remote.hostile"), said
    assert own.asked == []
