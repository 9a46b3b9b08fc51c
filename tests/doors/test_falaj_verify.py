"""falaj-verify.pyz on a machine that has Python and `cryptography`, and nothing else of ours."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from falaj.doors.verifier import build, main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("verifier") / "falaj-verify.pyz"
    path.write_bytes(build.archive())
    return path


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A new environment with `cryptography` and what that needs; no falaj, no msgspec."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    own = Path(find_spec("cryptography").origin).parents[1]
    for name in ("cryptography", "cffi", "pycparser"):
        if (own / name).is_dir():
            shutil.copytree(own / name, site / name)
    for file in own.glob("_cffi_backend*"):
        shutil.copy(file, site)
    python = folder / "bin" / "python"
    for absent in ("falaj", "msgspec", "numpy", "sqlalchemy"):
        done = subprocess.run(
            [python, "-I", "-c", f"import {absent}"], check=False, stderr=subprocess.DEVNULL
        )
        assert done.returncode == 1, absent
    return python


@pytest.fixture(scope="module")
def verify(bare, program, tmp_path_factory):
    """Run it far away from this repository, with an empty environment."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*words):
        done = subprocess.run(
            [bare, "-I", program, *map(str, words)],
            cwd=elsewhere, env={"PATH": os.defpath}, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="module")
def evidence(prepared, tmp_path_factory):
    """What a workspace hands to an auditor after an approval; made by the command line."""
    from typing_hands import run_here

    root = shutil.copytree(prepared, tmp_path_factory.mktemp("handed") / "project")
    for line in (
        ("audit", "checkpoint", "-o", "kept.checkpoint"),
        ("--as", "layla", "approve", "CHG-0001", "-m", "read the evidence"),
        ("audit", "prove", "latest", "-o", "event.tlog-proof"),
        ("audit", "growth", "3", "-o", "wrong.growth"),
        ("audit", "export", "-o", "log"),
        ("evidence", "export", "flight-delay"),
    ):
        done = run_here(root, *line)
        assert done.code == 0, done.err
    size = (root / "kept.checkpoint").read_text().split("\n")[1]
    done = run_here(root, "audit", "growth", size, "-o", "log.growth")
    assert done.code == 0, done.err
    return root


def trust(evidence):
    return ("--trust", evidence / "evidence.trust.json")


# --- what holds ---


def test_a_pack_holds(verify, evidence):
    code, out, err = verify("pack", evidence / "evidence.zip", *trust(evidence))
    assert (code, err) == (0, ""), out
    assert "everything holds" in out
    assert "1 approvals" in out
    assert "checkpoint" in out


def test_a_pack_holds_for_machines(verify, evidence):
    code, out, _ = verify("pack", evidence / "evidence.zip", *trust(evidence), "--json")
    assert code == 0
    assert json.loads(out)["holds"] is True


def test_a_proof_holds(verify, evidence):
    code, out, _ = verify("proof", evidence / "event.tlog-proof", *trust(evidence))
    assert code == 0, out
    assert "change/CHG-0001" in out


def test_a_growth_holds(verify, evidence):
    held = ("--held", evidence / "kept.checkpoint")
    code, out, _ = verify("growth", evidence / "log.growth", *held, *trust(evidence))
    assert code == 0, out
    assert "none of them was removed" in out


def test_an_export_holds(verify, evidence):
    code, out, _ = verify("export", evidence / "log", *trust(evidence))
    assert code == 0, out


def test_the_fingerprint_of_the_root_can_be_asked_for(verify, evidence, tmp_path):
    body = json.loads((evidence / "evidence.trust.json").read_text())
    hint = body["signatures"][0]["keyid"]
    words = ("pack", evidence / "evidence.zip", *trust(evidence), "--root")
    assert verify(*words, hint)[0] == 0
    code, _, err = verify(*words, "0" * 64)
    assert code == 2
    assert "trust root" in err


# --- what does not ---


def changed(path, to, at=0.5):
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    to.write_bytes(data)
    return to


@pytest.mark.parametrize("at", [0.001, 0.2, 0.5, 0.8, 0.9999])
def test_a_changed_pack_is_refused(verify, evidence, tmp_path, at):
    pack = changed(evidence / "evidence.zip", tmp_path / "pack.zip", at)
    code, out, _ = verify("pack", pack, *trust(evidence))
    assert code == 7
    assert "DIFFERS" in out
    assert "everything holds" not in out


def test_the_changed_file_is_named(verify, evidence, tmp_path):
    from falaj.audit.container import write_container

    with zipfile.ZipFile(evidence / "evidence.zip") as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    members["changes.json"] = members["changes.json"].replace(b"CHG-0001", b"CHG-0002")
    write_container(tmp_path / "pack.zip", members)
    code, out, _ = verify("pack", tmp_path / "pack.zip", *trust(evidence))
    assert code == 7
    assert "DIFFERS changes.json" in out


def test_the_trust_root_of_somebody_else_opens_nothing(verify, evidence, tmp_path):
    from falaj.links.keyring.keys import KeyRing

    ring = KeyRing(tmp_path / "ring")
    ring.create("log/flight-delay/1", ("log",))
    (tmp_path / "trust.json").write_text(ring.trust_text())
    other = ("--trust", tmp_path / "trust.json")
    assert verify("pack", evidence / "evidence.zip", *other)[0] == 7
    assert verify("proof", evidence / "event.tlog-proof", *other)[0] == 7
    assert verify("export", evidence / "log", *other)[0] == 7
    held = ("--held", evidence / "kept.checkpoint")
    assert verify("growth", evidence / "log.growth", *held, *other)[0] == 7


def test_without_a_trust_root_nothing_is_judged(verify, evidence):
    code, _, err = verify("pack", evidence / "evidence.zip")
    assert code == 2
    assert "--trust" in err


MISUSES = {
    "no such file": ("proof", "none.tlog-proof"),
    "no folder": ("export", "event.tlog-proof"),
    "a time that is none": ("proof", "event.tlog-proof", "--at", "yesterday"),
    "a witness that is none": ("proof", "event.tlog-proof", "--witness", "abc"),
    "no kind": ("everything", "log"),
}


@pytest.mark.parametrize("words", MISUSES.values(), ids=MISUSES)
def test_what_cannot_be_asked(verify, evidence, words):
    kind, what, *rest = words
    code, _, err = verify(kind, evidence / what, *trust(evidence), *rest)
    assert code == 2
    assert err


def test_a_trust_root_that_has_expired_is_none(verify, evidence):
    words = ("proof", evidence / "event.tlog-proof", *trust(evidence))
    code, _, err = verify(*words, "--at", "2096-01-01T00:00:00Z")
    assert code == 2
    assert "expired" in err


def test_a_pack_holds_the_proof_of_each_approval(verify, evidence, tmp_path):
    """Taken out of the pack it holds by itself; that of another event is refused in the pack."""
    from typing_hands import run_here

    from falaj.audit.container import write_container

    with zipfile.ZipFile(evidence / "evidence.zip") as packed:
        members = {name: packed.read(name) for name in packed.namelist()}
    (name,) = (n for n in members if n.endswith(".tlog-proof"))
    (tmp_path / "one.tlog-proof").write_bytes(members[name])
    code, out, _ = verify("proof", tmp_path / "one.tlog-proof", *trust(evidence))
    assert code == 0, out
    assert "change.approved of change/CHG-0001" in out
    listed = run_here(evidence, "audit", "list", "--type", "release.", "--json").json()["data"]
    path = tmp_path / "other.tlog-proof"
    assert (
        run_here(evidence, "audit", "prove", listed["events"][0]["id"], "-o", str(path)).code == 0
    )
    other = path.read_bytes()
    for bad, words in ((members[name][:-9], "was changed"), (other, "which is another one")):
        write_container(tmp_path / "pack.zip", {**members, name: bad})
        code, out, _ = verify("pack", tmp_path / "pack.zip", *trust(evidence))
        assert code == 7
        assert f"DIFFERS {name}" in out
        assert words in out


def test_too_few_witnesses(verify, evidence):
    for kind, what in (
        ("proof", "event.tlog-proof"),
        ("pack", "evidence.zip"),
        ("export", "log"),
    ):
        code, out, _ = verify(kind, evidence / what, *trust(evidence), "--witnesses", "1")
        assert code == 7
        assert "0 witnesses have cosigned, wanted are 1" in out


def test_a_changed_proof_is_refused(verify, evidence, tmp_path):
    (tmp_path / "other.json").write_text('{"id":"x"}')
    proof = evidence / "event.tlog-proof"
    code, out, _ = verify("proof", proof, *trust(evidence), "--event", tmp_path / "other.json")
    assert code == 7
    assert "does not stand at place" in out
    for at in (0.05, 0.3, 0.6, 0.7, 0.95):
        other = changed(proof, tmp_path / "changed.tlog-proof", at)
        assert verify("proof", other, *trust(evidence))[0] == 7, at


def test_a_growth_from_elsewhere_is_refused(verify, evidence):
    held = ("--held", evidence / "kept.checkpoint")
    code, out, _ = verify("growth", evidence / "wrong.growth", *held, *trust(evidence))
    assert code == 7
    assert "is held" in out


EXPORTS = {  # what is done to the folder -> the file that is named
    "an event changed": lambda f: edit(f / "events.jsonl", b"owner", b"omner"),
    "an event dropped": lambda f: edit(f / "events.jsonl", None, None),
    "a tile changed": lambda f: flip(next(f.glob("tile/0/*.p/*"))),
    "a tile dropped": lambda f: next(f.glob("tile/0/*.p/*")).unlink(),
    "a bundle changed": lambda f: flip(next(f.glob("tile/entries/*.p/*"))),
    "the checkpoint dropped": lambda f: (f / "checkpoint").unlink(),
    "the checkpoint changed": lambda f: flip(f / "checkpoint"),
    "the events dropped": lambda f: (f / "events.jsonl").unlink(),
}


def edit(path, old, new):
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    path.write_bytes(
        b"".join(lines[:-1])
        if old is None
        else data.replace(b'"n', b'"m', 1).replace(b"falaj.", b"falaj,", 1)
    )


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("change", EXPORTS.values(), ids=EXPORTS)
def test_a_changed_export_is_refused(verify, evidence, tmp_path, change):
    folder = shutil.copytree(evidence / "log", tmp_path / "log")
    change(folder)
    code, out, _ = verify("export", folder, *trust(evidence))
    assert code == 7
    assert "DIFFERS" in out


# --- the file itself ---


def test_it_holds_our_source_and_nothing_else(program):
    with zipfile.ZipFile(program) as packed:
        names = packed.namelist()
        assert "__main__.py" in names
        for name in names:
            if name != "__main__.py":
                assert packed.read(name) == (ROOT / "src" / name).read_bytes(), name
    assert not any(name.startswith(("falaj/facts", "falaj/links", "falaj/ports")) for name in names)
    assert program.stat().st_size < 100_000


def test_the_same_source_gives_the_same_file(program):
    assert hashlib.sha256(build.archive()).digest() == hashlib.sha256(program.read_bytes()).digest()


def test_a_package_of_others_does_not_come_in():
    with pytest.raises(ImportError, match="imports msgspec"):
        build.needed("falaj.facts.wire")


def test_it_asks_for_nothing_but_cryptography(bare, program):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import falaj.doors.verifier.main, json; "
        "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    done = subprocess.run(
        [bare, "-I", "-c", code, program], capture_output=True, text=True, check=True
    )
    others = set(json.loads(done.stdout)) - set(sys.stdlib_module_names) - {"falaj", "__main__"}
    assert not {name for name in others if not name.startswith("_")}


def test_inside_an_installation_it_answers_the_same(evidence, capsys):
    words = ["proof", str(evidence / "event.tlog-proof"), *map(str, trust(evidence))]
    assert main.main(words) == 0
    assert "everything holds" in capsys.readouterr().out
