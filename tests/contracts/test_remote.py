"""The promises of the port `Remote`, over each place: what is pushed comes back whole, once."""

from __future__ import annotations

import json
import os
import subprocess
import tracemalloc
from contextlib import closing
from types import SimpleNamespace

import pytest
import stores
from registries import (
    PASSWORD,
    USER,
    DockerRegistry,
    OwnRegistry,
    digest_of,
    fetch,
    opened,
    parcel,
    push,
    same,
)
from servers import House

from falaj.base import canonical, digests, dsse
from falaj.base.errors import Conflict, NotFound
from falaj.base.strangers import Refused
from falaj.facts.attestations import PUBLISHED, statement
from falaj.links.oci.credentials import Login
from falaj.links.oci.registry import OciRemote
from falaj.releases.verify import scan


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def made(house):
    return house.release("1.0.0")


@pytest.fixture(scope="module")
def second(house):
    return house.release("1.1.0", threshold="0.25")


@pytest.fixture(scope="module")
def docker(tmp_path_factory):
    with closing(DockerRegistry(tmp_path_factory.mktemp("registry") / "r")) as registry:
        yield registry


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    with closing(stores.moto(tmp_path_factory.mktemp("moto"))) as store:
        yield store


@pytest.fixture(scope="module")
def rclone(tmp_path_factory):
    with closing(stores.rclone(tmp_path_factory.mktemp("rclone"))) as store:
        yield store


@pytest.fixture
def referring():
    with closing(OwnRegistry(referrers=True)) as own:
        yield own


@pytest.fixture
def listing():
    with closing(stores.OwnStore()) as store:
        yield store


REGISTRIES = ["docker", "referring"]
STORES = ["moto", "rclone", "listing"]


@pytest.fixture
def name(request):
    """Of its own for each test."""
    word = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())
    return "-".join(filter(None, word.split("-")))


@pytest.fixture(params=[*REGISTRIES, *STORES])
def at(request, name):
    """An address, and what is needed to speak to it."""
    peer = request.getfixturevalue(request.param)
    if request.param in STORES:
        return f"s3://{stores.BUCKET}/team/{name}", {"store": peer}
    return f"oci://{peer.host}/team/{name}", {}


@pytest.fixture(params=REGISTRIES)
def place(request, name):
    return f"oci://{request.getfixturevalue(request.param).host}/team/{name}"


def test_what_is_pushed_comes_back_byte_for_byte(house, made, at, tmp_path):
    place, how = at
    done = push(house, made, place, **how)
    assert done.tag == "1.0.0"
    assert done.sent >= len(set(parcel(made).digests.values()))
    assert done.there == 0
    found = fetch(house, done.address, tmp_path / "by-digest", **how)
    assert same(made.folder, tmp_path / "by-digest")
    assert (found.release, found.asked, found.signers) == (made.id, "", ("releaser",))
    assert found.outer == ("releaser" if place.startswith("oci") else "")
    by_tag = fetch(house, f"{place}:1.0.0", tmp_path / "by-tag", **how)
    assert (by_tag.asked, by_tag.address) == ("1.0.0", done.address)
    assert (tmp_path / "by-tag").stat().st_mode & 0o777 == 0o700


def test_nothing_is_brought_twice(house, made, at):
    place, how = at
    first, again = push(house, made, place, **how), push(house, made, place, **how)
    assert again.digest == first.digest, "the same release is the same manifest"
    assert (again.sent, again.sent_bytes) == (0, 0)
    assert again.there == first.sent


def test_one_signature_is_enough(house, made, place):
    push(house, made, place)
    push(house, made, place)
    with closing(OciRemote(f"{place}:1.0.0")) as remote:
        assert len(remote.find().envelopes) == 1


def test_signatures_of_two_lie_side_by_side(house, made, place):
    house.ring.create("second", ("release",))
    with closing(OciRemote(place)) as remote:
        for signer in ("releaser", "second"):

            def sign(digest, there, signer=signer):
                said = statement(PUBLISHED, "delay", digest, {"release": made.id})
                return canonical.dumps(dsse.seal(said, house.ring.signer(signer)))

            remote.push(parcel(made), sign)
    with closing(OciRemote(f"{place}:1.0.0")) as remote:
        assert len(remote.find().envelopes) == 2


def test_two_versions_share_what_is_the_same(house, made, second, place):
    push(house, made, place)
    done = push(house, second, place)
    assert 0 < done.sent < len(parcel(second).files)
    assert done.there > 0


def test_a_tag_that_is_taken_is_refused(house, made, second, at, tmp_path):
    place, how = at
    one = push(house, made, f"{place}:stable", **how)
    with pytest.raises(Conflict) as caught:
        push(house, second, f"{place}:stable", **how)
    assert caught.value.code == "remote.tag-taken"
    assert one.digest in str(caught.value)
    two = push(house, second, f"{place}:stable", move=True, **how)
    assert fetch(house, f"{place}:stable", tmp_path / "s", **how).release == second.id
    assert fetch(house, one.address, tmp_path / "o", **how).release == made.id, "the digest stays"
    assert two.digest != one.digest


def test_what_is_not_there(house, at, tmp_path):
    place, how = at
    for reference in (":none", "@sha256:" + "7" * 64):
        with pytest.raises(NotFound) as caught:
            fetch(house, place + reference, tmp_path / "x", **how)
        assert caught.value.code == "remote.not-found"
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_and_one_in_two_places(tmp_path, at):
    place, how = at
    files = {}
    for name, data in {"a": b"", "b/c": b"twice", "b/d": b"twice"}.items():
        files[name] = tmp_path / name.replace("/", "-")
        files[name].write_bytes(data)
    told = canonical.dumps({"files": {n: digests.of_file(f) for n, f in files.items()}})
    files["release.json"] = tmp_path / "release.json"
    files["release.json"].write_bytes(told)
    odd = SimpleNamespace(id=digest_of(told), version="9", folder=tmp_path)
    with closing(opened(place, **how)) as remote:
        done = remote.push(parcel(odd, files=files), lambda *_: None)
    with closing(opened(done.address, **how)) as remote:
        found = remote.find()
        assert found.files.keys() == files.keys()
        for name, piece in found.files.items():
            to = tmp_path / f"back-{name.replace('/', '-')}"
            remote.bring(piece, to)
            assert to.read_bytes() == files[name].read_bytes()


@pytest.mark.parametrize("peer", ["docker", "moto", "rclone"])
def test_a_file_larger_than_what_memory_is_allowed(request, peer, tmp_path):
    """128 MB go there and come back through less than 8 MB of Python's memory."""
    server = request.getfixturevalue(peer)
    big = tmp_path / "big"
    with big.open("wb") as file:
        for block in range(128):
            file.write(block.to_bytes(4, "big") * (1 << 18))
    told = canonical.dumps({"files": {"model/big": digests.of_file(big)}})
    (tmp_path / "release.json").write_bytes(told)
    files = {"model/big": big, "release.json": tmp_path / "release.json"}
    odd = SimpleNamespace(id=digest_of(told), version="9", folder=tmp_path)
    whole = parcel(odd, files=files)
    place, how = f"oci://{getattr(server, 'host', '')}/team/big", {}
    if peer != "docker":
        place, how = f"s3://{stores.BUCKET}/team/big", {"store": server}
    tracemalloc.start()
    with closing(opened(place, **how)) as remote:
        done = remote.push(whole, lambda *_: None)
    with closing(opened(done.address, **how)) as remote:
        piece = remote.find().files["model/big"]
        remote.bring(piece, tmp_path / "back")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert digests.of_file(tmp_path / "back") == digests.of_file(big)
    assert peak < 8 << 20, peak


# --- docker-registry alone ----------------------------------------------------------------------


def test_the_artifact_is_what_oci_says(house, made, docker):
    done = push(house, made, f"oci://{docker.host}/team/form")
    kind = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    status, headers, data = docker.ask("GET", "/v2/team/form/manifests/1.0.0", headers=kind)
    manifest = json.loads(data)
    assert status == 200
    assert headers["Docker-Content-Digest"] == done.digest == digest_of(data)
    assert headers["Content-Type"] == manifest["mediaType"] == kind["Accept"]
    assert manifest["artifactType"] == "application/vnd.falaj.release.v1"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
    titles = [one["annotations"]["org.opencontainers.image.title"] for one in manifest["layers"]]
    assert titles == sorted(scan(made.folder).files)
    assert manifest["annotations"]["dev.falaj.release"] == made.id
    tag = done.digest.replace(":", "-")
    accept = {"Accept": "application/vnd.oci.image.index.v1+json"}
    status, _, data = docker.ask("GET", f"/v2/team/form/manifests/{tag}", headers=accept)
    (listed,) = json.loads(data)["manifests"]
    assert listed["artifactType"] == "application/vnd.falaj.release.signature.v1"


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("locked") / "r"
    with closing(DockerRegistry(folder, password=True)) as registry:
        yield registry


def test_with_the_right_password(house, made, locked, tmp_path):
    done = push(
        house, made, f"oci://{locked.host}/team/in", credentials=lambda _: Login(USER, PASSWORD)
    )
    found = fetch(house, done.address, tmp_path / "r", credentials=lambda _: Login(USER, PASSWORD))
    assert found.release == made.id


NAMES = {
    "nobody": None,
    "a wrong password": Login(USER, "no"),
    "a stranger": Login("eve", PASSWORD),
}


@pytest.mark.parametrize("login", NAMES.values(), ids=NAMES)
def test_without_the_right_password(house, made, locked, tmp_path, login):
    with pytest.raises(Refused) as caught:
        push(house, made, f"oci://{locked.host}/team/out", credentials=lambda _: login)
    assert caught.value.code == "remote.denied"
    assert ("without a name" in str(caught.value)) is (login is None)
    assert PASSWORD not in repr(caught.value.problems)
    with pytest.raises(Refused):
        fetch(
            house, f"oci://{locked.host}/team/in:1.0.0", tmp_path / "x", credentials=lambda _: login
        )
    assert list(tmp_path.iterdir()) == []


def test_it_is_away_and_comes_back(house, made, tmp_path):
    """Killed in the middle of its life: told in words, and a second push brings only what is missing."""
    registry = DockerRegistry(tmp_path / "r")
    address = f"oci://{registry.host}/team/away"
    push(house, made, address)
    os.killpg(registry.process.pid, 9)
    registry.process.wait()
    with pytest.raises(Exception) as caught:
        push(house, made, address, pause=lambda _: None)
    assert caught.value.code == "remote.unreachable"
    registry.process = subprocess.Popen(
        registry.process.args, cwd=tmp_path / "r", start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert registry.ready()
    assert push(house, made, address).sent == 0
    registry.close()


# --- a bucket ------------------------------------------------------------------------------------


def test_the_folder_lies_in_a_bucket_as_it_is(house, made, rclone):
    """What any tool that copies objects gets: the release, whole and signed."""
    done = push(house, made, f"s3://{stores.BUCKET}/team/as-it-is", store=rclone)
    base = rclone.log.parent / "s3" / stores.BUCKET / "team" / "as-it-is"
    assert same(made.folder, base / done.digest.replace(":", "-"))
    assert (base / "tags" / "1.0.0").read_text() == f"{made.id}\n"
    assert sorted(path.name for path in base.iterdir() if any(path.iterdir())) == [
        done.digest.replace(":", "-"),
        "tags",
    ]
