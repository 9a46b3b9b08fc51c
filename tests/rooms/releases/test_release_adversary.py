"""An adversary with the whole folder in hand: every byte, every file, every signature, every key."""

from __future__ import annotations

import itertools
import json
import shutil
from datetime import timedelta

import msgspec
import pytest
from authority import NAME, authority, leaf

from falaj.base import bundle, canonical, digests, dsse
from falaj.facts.releases import (
    Authority,
    Manifest,
    Revocation,
    RevocationKind,
    RoleRule,
)
from falaj.facts.wire import canonical_bytes
from falaj.releases.sign import sign_release
from falaj.releases.verify import look_again, verify_release


@pytest.fixture(scope="module")
def made(make_release):
    return make_release()


@pytest.fixture(scope="module")
def other(make_release):
    """Another version of the same model, signed by the same keys."""
    return make_release(version="8")


@pytest.fixture(scope="module")
def now(made):
    return made.manifest.created + timedelta(days=1)


@pytest.fixture
def copy(made, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    return folder


@pytest.fixture(scope="module")
def judge(made, key_ring, now):
    trust = key_ring.trust()

    def go(folder, **more):
        asked = {"release_id": made.id, "requires": ("quality", "security"), "now": now}
        return verify_release(folder, more.pop("trust", trust), **(asked | more))

    return go


def codes(found):
    return {finding.code for finding in found.findings}


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


# --- every byte --------------------------------------------------------------------------------


def test_every_byte_of_every_file_counts(made, key_ring, now):
    """Judged in memory, as `verify_release` judges a folder: by names, digests and small files."""
    held = {name: (made.folder / name).read_bytes() for name in files(made.folder)}
    hashes = {name: digests.of_bytes(data) for name, data in held.items()}
    keys = {role: _keys(key_ring, role, now) for role in ("release", "gate", "build")}
    read: set[str] = set()

    def found(name, data):
        content = held | {name: data}

        def give(path):
            read.add(path)
            return content[path]

        listing = bundle.Content(hashes | {name: digests.of_bytes(data)}, give)
        return bundle.examine(
            listing,
            keys.__getitem__,
            release_id=made.id,
            requires=("quality", "security"),
            identity=lambda hint: hint,
        ).findings

    assert found("card.md", held["card.md"]) == ()
    assert "release.json" in read
    free = []
    for name, data in held.items():
        # What is only hashed is refused by its digest; what is read is judged byte by byte.
        step = 1 if name in ("release.json", "signature.json") else 211
        for place in range(len(data)):
            changed = bytearray(data)
            changed[place] ^= 1 << (place % 8)
            if digests.of_bytes(bytes(changed)) == hashes[name]:
                free.append((name, place))
            if place % step:
                continue
            if name not in {finding.file for finding in found(name, bytes(changed))}:
                free.append((name, place))
    assert free == []


def _keys(ring, role, now):
    from falaj.facts.trust import keys_for

    return keys_for(ring.trust(), role, now)


@pytest.mark.parametrize("cut", [0, 1, -1], ids=["emptied", "to one byte", "by one byte"])
def test_every_cut_file_counts(made, copy, judge, cut):
    for name in files(made.folder):
        data = (made.folder / name).read_bytes()
        (copy / name).write_bytes(data[:cut])
        assert name in {finding.file for finding in judge(copy).findings}, name
        (copy / name).write_bytes(data)
    assert judge(copy).holds


# --- every file --------------------------------------------------------------------------------


def test_every_file_that_is_gone_is_named(made, copy, judge):
    for name in files(made.folder):
        data = (copy / name).read_bytes()
        (copy / name).unlink()
        found = judge(copy)
        assert not found.holds, name
        assert any(name in (f.file, f"{f.file}{name}") or f.file == name for f in found.findings)
        (copy / name).write_bytes(data)


def test_every_file_under_another_name_is_named(made, copy, judge):
    for name in files(made.folder):
        (copy / name).rename(copy / f"{name}.bak")
        told = {finding.file for finding in judge(copy).findings}
        assert told & {name, f"{name}.bak"}, name
        (copy / f"{name}.bak").rename(copy / name)


def test_any_two_files_in_each_others_place_are_named(made, copy, judge):
    names = files(made.folder)
    for one, two in itertools.pairwise(names):
        first, second = (copy / one).read_bytes(), (copy / two).read_bytes()
        if first == second:
            continue
        (copy / one).write_bytes(second)
        (copy / two).write_bytes(first)
        assert {one, two} <= {finding.file for finding in judge(copy).findings}, (one, two)
        (copy / one).write_bytes(first)
        (copy / two).write_bytes(second)


ADDED = [
    "evil.py",
    "model/evil.py",
    "evidence/evil.dsse.json",
    "signatures/evil.json",
    "signatures/deep/evil.json",
    "reference/evil",
    ".git/hooks/pre-commit",
    "model/.git",
    "release.json.bak",
    "model/model.onnx ",
    "MODEL/model.onnx",
]


@pytest.mark.parametrize("name", ADDED)
def test_a_file_more_is_refused_wherever_it_lies(copy, judge, name):
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    (copy / name).write_bytes(b"{}")
    found = judge(copy)
    assert not found.holds
    assert name in {finding.file for finding in found.findings}


# --- between releases --------------------------------------------------------------------------


def test_every_file_of_another_release_is_refused(made, other, copy, judge):
    """Signed by the same keys, at the same time: it only belongs elsewhere."""
    same = []
    for name in files(other.folder):
        theirs = (other.folder / name).read_bytes()
        mine = (copy / name).read_bytes()
        if theirs == mine:
            same.append(name)
            continue
        (copy / name).write_bytes(theirs)
        assert name in {finding.file for finding in judge(copy).findings}, name
        (copy / name).write_bytes(mine)
    assert "signature.json" not in same
    assert "release.json" not in same


def test_another_release_in_the_place_of_this_one_is_refused(other, judge):
    assert codes(judge(other.folder)) == {"releases.wrong-id"}
    assert judge(other.folder, release_id=other.id).holds


def test_a_signature_that_was_moved_signs_nothing(made, other, copy, judge):
    shutil.copy(other.folder / "signature.json", copy / "signature.json")
    assert "releases.signature" in codes(judge(copy))


def test_a_further_signature_that_was_moved_signs_nothing(
    made, other, copy, judge, key_ring, tmp_path
):
    theirs = tmp_path / "theirs"
    shutil.copytree(other.folder, theirs)
    sign_release(theirs, key_ring.signer("second"))
    assert judge(theirs, release_id=other.id, threshold=2).holds
    shutil.copytree(theirs / "signatures", copy / "signatures")
    found = judge(copy, threshold=2)
    assert not found.holds
    assert any(
        f.file.startswith("signatures/") or f.code == "releases.tampered" for f in found.findings
    )


def test_evidence_that_was_moved_proves_nothing(made, make_release, copy, judge, key_ring):
    """A verdict about another model, rightly signed, in a release that is signed anew around it."""
    from falaj.facts.attestations import GATE, statement

    said = statement(
        GATE,
        "delay",
        "sha256:" + "4" * 64,
        {"gate": "bias", "verdict": "pass", "at": made.manifest.created, "results": []},
    )
    carried = make_release(more=[dsse.seal(said, key_ring.signer("gater"))])
    found = judge(carried.folder, release_id=carried.id, requires=("bias",))
    assert codes(found) == {"releases.evidence-invalid", "releases.evidence-missing"}


def rewritten(copy, **fields):
    """release.json that lists what lies there now: right in itself, with another id."""
    body = (copy / "release.json").read_bytes()
    manifest = msgspec.convert(canonical.loads(body), Manifest, strict=False)
    listed = {
        name: digests.of_file(copy / name)
        for name in files(copy)
        if name != "release.json" and not bundle.is_bundle(name)
    }
    changed = msgspec.structs.replace(manifest, files=listed, **fields)
    (copy / "release.json").write_bytes(canonical_bytes(changed))
    return digests.of_file(copy / "release.json")


def test_a_manifest_that_was_made_to_fit_is_refused(copy, judge):
    (copy / "model" / "model.onnx").write_bytes(b"evil")
    id_ = rewritten(copy)
    found = judge(copy)
    assert {"releases.wrong-id", "releases.tampered"} <= codes(found)
    unnamed = judge(copy, release_id=id_)
    assert not unnamed.holds, "also for who asks for the forged id: nobody signed it"


def test_a_manifest_made_to_fit_and_signed_by_a_stranger_is_refused(copy, judge, key_ring):
    (copy / "model" / "model.onnx").write_bytes(b"evil")
    (copy / "signature.json").unlink()
    inner = {
        n.removeprefix("model/"): digests.of_file(copy / n)
        for n in files(copy)
        if n.startswith("model/")
    }
    id_ = rewritten(copy, tree=digests.of_tree(inner))
    sign_release(copy, key_ring.signer("outsider"))
    found = judge(copy, release_id=id_)
    assert "releases.signature" in codes(found)
    assert "releases.evidence-invalid" in codes(found), (
        "its evidence speaks about the model that was"
    )


# --- keys, thresholds, certificates, each with its reason --------------------------------------


def said_by(key_ring, now, **fields):
    until = now + timedelta(days=9)
    return msgspec.structs.replace(key_ring.trust(), expires=until, next_update=until, **fields)


def gone(key_ring, name, kind=RevocationKind.COMPROMISED, **more):
    hint = dsse.hint_of(key_ring.signer(name).public)
    return {"revocations": (Revocation(kind=kind, subject=hint, **more),)}


def without(key_ring, name):
    return {"keys": tuple(k for k in key_ring.trust().keys if k.identity != name)}


def roles(key_ring, name, *given):
    return {
        "keys": tuple(
            msgspec.structs.replace(key, roles=given) if key.identity == name else key
            for key in key_ring.trust().keys
        )
    }


TRUSTS = {  # what the trust root says -> the one code, and a word of the reason
    "the signer's key was stolen": (
        lambda r: gone(r, "releaser"), "releases.signature", "not trusted",
    ),
    "the signer's key was stolen before it signed": (
        lambda r: gone(r, "releaser", since=r.trust().keys[0].not_before), "releases.signature",
        "not trusted",
    ),
    "the signer left before": (
        lambda r: gone(
            r, "releaser", RevocationKind.RETIRED, since=r.trust().keys[0].not_before
        ),
        "releases.signature",
        "not trusted",
    ),
    "nobody knows the signer": (lambda r: without(r, "releaser"), "releases.signature", "not trusted"),
    "the signer is of another role": (
        lambda r: roles(r, "releaser", "gate", "build", "approval"), "releases.signature",
        "not trusted",
    ),
    "the gate is of another role": (
        lambda r: roles(r, "gater", "release"), "releases.evidence-invalid", "not trusted",
    ),
    "the gate's key was stolen": (
        lambda r: gone(r, "gater"), "releases.evidence-invalid", "not trusted",
    ),
    "two must sign": (
        lambda r: {"rules": {"release": RoleRule(threshold=2)}}, "releases.signature",
        "by 1 trusted identities, needed are 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "code", "word"), TRUSTS.values(), ids=TRUSTS)
def test_what_the_trust_root_says_decides(made, judge, key_ring, now, change, code, word):
    found = judge(made.folder, trust=said_by(key_ring, now, **change(key_ring)))
    told = {f.code for f in found.findings}
    assert code in told
    assert told <= {code, "releases.evidence-missing"}
    assert word in " ".join(f.message for f in found.findings)


def test_a_signature_by_an_expired_certificate_is_refused_with_its_reason(
    make_release, judge, key_ring, now, tmp_path
):
    bare = make_release(signer=None, version="bare")
    folder = tmp_path / "copy"
    shutil.copytree(bare.folder, folder)
    root = authority(now)
    holder = leaf(root, now, begins=timedelta(days=-5))
    sign_release(folder, holder, chain=holder.chain)
    entry = Authority(
        identity="ci",
        certificate=root.pem,
        name=NAME,
        roles=("release",),
        not_before=now - timedelta(days=9),
        not_after=now + timedelta(days=9),
    )
    trust = said_by(key_ring, now, authorities=(entry,))
    found = judge(folder, trust=trust, release_id=bare.id)
    assert codes(found) == {"releases.signature"}
    assert "expired" in " ".join(f.message for f in found.findings)


# --- after the load ----------------------------------------------------------------------------


def test_every_byte_of_the_private_copy_counts_when_it_is_looked_at_again(made, copy):
    (copy / "signature.json").unlink()
    assert look_again(copy, made.manifest) == ()
    for name in files(copy):
        data = (copy / name).read_bytes()
        for place in {0, len(data) // 2, len(data) - 1}:
            changed = bytearray(data)
            changed[place] ^= 1
            (copy / name).write_bytes(changed)
            assert name in {finding.file for finding in look_again(copy, made.manifest)}
        (copy / name).write_bytes(data)


def test_bundles_hold_no_byte_that_means_nothing(made, key_ring):
    """The same signature in another spelling of JSON is another file, and refused as the first one."""
    data = (made.folder / "signature.json").read_bytes()
    keys = {dsse.hint_of(k): k for k in [key_ring.signer("releaser").public]}
    value = json.loads(data)
    for text in (
        json.dumps(value),
        json.dumps(value, indent=1),
        json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n",
        json.dumps(dict(reversed(value.items())), separators=(",", ":")),
        data.decode().replace("/", "\\/", 1),
    ):
        if text.encode() == data:
            continue
        with pytest.raises(dsse.BadEnvelope):
            bundle.open_bundle(text.encode(), keys)
