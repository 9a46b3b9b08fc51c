"""Keys from the command line: several signers, revocations, keys on a token, artifacts sealed at rest."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime

import pytest
import softhsm
from authority import NAME, authority
from cryptography.hazmat.primitives.asymmetric import ed25519
from small_project import TOML, write_project

from falaj.base import dsse, fenc
from falaj.base.errors import Exit
from falaj.facts.trust import keys_for, open_trust

NOW = datetime.now(UTC)


def ok(here, root, *words):
    done = here(root, *words)
    assert done.code == 0, f"{words}\n{done.out}\n{done.err}"
    return done


def refused(here, root, code, *words):
    done = here(root, *words)
    assert done.code != 0, words
    assert f"[{code}]" in done.err, done.err
    assert "Traceback" not in done.err
    return done


# --- signers -----------------------------------------------------------------------------------


def test_production_waits_for_a_second_signature(here, living):
    """The threshold is asked for where the release would begin to run."""
    ok(here, living, "keys", "create", "layla", "--role", "release")
    ok(here, living, "keys", "require", "release", "2", "-e", "production")
    ok(here, living, "--as", "layla", "approve", "-m", "read it")
    done = refused(here, living, "releases.signature", "rollout", "start", "CHG-0001")
    assert done.code == Exit.UNVERIFIED
    assert "signed whole by 1 trusted identities, needed are 2" in done.err
    signed = ok(here, living, "release", "sign", "1.0.0", "--as", "layla", "--json").json()["data"]
    folder = living / signed["release"]["folder"] / "signatures"
    assert [path.name for path in folder.iterdir()] == [f"{signed['key'][:16]}.json"]
    ok(here, living, "rollout", "start", "CHG-0001", "--watch")


def test_who_has_no_key_of_the_role_signs_nothing(here, workspace):
    before = sorted((workspace / ".falaj/releases/flight-delay/1.0.0").rglob("*"))
    refused(here, workspace, "keys.no-role", "release", "sign", "1.0.0", "--as", "layla")
    refused(here, workspace, "access.unknown-identity", "release", "sign", "--as", "nobody")
    ok(here, workspace, "access", "add", "reader", "--role", "viewer")
    ok(here, workspace, "keys", "create", "reader", "--role", "release")
    refused(here, workspace, "access.denied", "release", "sign", "1.0.0", "--as", "reader")
    assert sorted((workspace / ".falaj/releases/flight-delay/1.0.0").rglob("*")) == before


def test_only_the_owner_changes_whom_everybody_trusts(here, workspace):
    (workspace / "ca.pem").write_text(authority(NOW).pem)
    for words in (
        ("keys", "create", "mallory", "--role", "release"),
        ("keys", "add", "mallory", "ca.pem", "--role", "release", "--name", NAME),
        ("keys", "rotate", "root"),
        ("keys", "revoke", "owner", "-m", "x"),
        ("keys", "require", "release", "1"),
        ("keys", "erase", "artifacts/2026-03", "-m", "x"),
        ("keys", "trust", "--adopt", "ca.pem"),
        ("keys", "trust", "--sign", "ca.pem"),
    ):
        refused(here, workspace, "access.denied", "--as", "layla", *words)


MISTAKES = {
    "a threshold nobody reaches": ("keys.threshold", "keys", "require", "release", "9"),
    "an environment that is not there": (
        "config.no-environment", "keys", "require", "release", "1", "-e", "moon",
    ),
    "an unknown key": ("keys.nothing-to-revoke", "keys", "revoke", "nobody", "-m", "x"),
    "the root": ("keys.root", "keys", "revoke", "root", "-m", "x"),
    "an unknown release": (
        "releases.unknown", "keys", "revoke", "9.9.9", "--kind", "withdrawn", "-m", "x",
    ),
    "a time that is none": ("api.bad-time", "keys", "revoke", "layla", "--since", "soon", "-m", "x"),
    "a key that is not here": ("keys.missing", "keys", "rotate", "nobody"),
    "a file that is no key": (
        "keys.not-admitted", "keys", "add", "omar", "falaj.toml", "--role", "gate",
    ),
    "a file that is no trust root": ("keys.not-adopted", "keys", "trust", "--adopt", "falaj.toml"),
    "one that is not to be signed": ("keys.not-signed", "keys", "trust", "--sign", "falaj.toml"),
    "a name that may not be": ("keys.identity", "keys", "create", "../x", "--role", "gate"),
    "nothing is sealed": ("keys.no-scope", "keys", "erase", "artifacts/2026-03", "-m", "x"),
    "nothing to wrap": ("keys.no-scope", "keys", "rewrap"),
}  # fmt: skip


@pytest.mark.parametrize("words", MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_said(here, workspace, words):
    refused(here, workspace, *words)


def test_keys_of_others_and_an_authority_are_listed(here, workspace):
    (workspace / "ca.pem").write_text(authority(NOW).pem)
    edwards = ed25519.Ed25519PrivateKey.generate()
    (workspace / "auditor.pem").write_bytes(dsse.public_pem(edwards))
    ok(here, workspace, "keys", "add", "ci", "ca.pem", "--role", "release", "--name", NAME)
    ok(here, workspace, "keys", "add", "auditor", "auditor.pem", "--role", "gate")
    refused(
        here, workspace, "keys.not-admitted", "keys", "add", "x", "auditor.pem", "--role", "release"
    )
    said = ok(here, workspace, "keys", "list").out
    assert f"ci: certificates for {NAME}, release" in said
    assert "elsewhere" in said
    ok(here, workspace, "keys", "trust", "-o", "trust.json")
    trust = open_trust((workspace / "trust.json").read_bytes(), now=NOW)
    assert dsse.hint_of(dsse.public_pem(edwards)) in keys_for(trust, "gate", datetime.now(UTC))


def test_two_holders_of_root_keys_from_two_workspaces(here, workspace, tmp_path):
    other = write_project(tmp_path / "other")
    ok(here, other, "keys", "trust", "-o", "theirs.json")
    theirs = open_trust((other / "theirs.json").read_bytes(), now=NOW)
    (workspace / "hessa.pem").write_text(theirs.keys[0].public)
    ok(here, workspace, "keys", "add", "hessa", "hessa.pem", "--role", "root")
    refused(here, workspace, "keys.root-short", "keys", "require", "root", "2")
    proposal = workspace / ".falaj/keys/trust.next.json"
    shutil.copy(proposal, other / "next.json")
    refused(here, workspace, "keys.not-adopted", "keys", "trust", "--adopt", str(proposal))
    ok(here, other, "keys", "trust", "--sign", "next.json")
    ok(here, workspace, "keys", "trust", "--adopt", str(other / "next.json"))
    assert "root" in ok(here, workspace, "keys", "list").out
    refused(here, workspace, "keys.root-short", "keys", "create", "x", "--role", "gate")


def test_a_withdrawn_release_does_not_begin_to_run(here, living):
    ok(here, living, "--as", "layla", "approve", "-m", "read it")
    ok(here, living, "keys", "revoke", "1.0.0", "--kind", "withdrawn", "-m", "wrong data")
    done = refused(here, living, "releases.withdrawn", "rollout", "start", "CHG-0001")
    assert "wrong data" in done.err


# --- keys on a token ---------------------------------------------------------------------------


def test_a_workspace_with_its_keys_on_a_token(here, tmp_path):
    module, token, pin = softhsm.token()
    keys = f'\n[keys]\nstore = "token"\nmodule = "{module}"\ntoken = "{token}"\npin_file = "pin"\n'
    toml = TOML.replace('name = "small"', f'name = "small-{tmp_path.name[-20:].replace("_", "-")}"')
    root = write_project(tmp_path / "project", toml=toml + keys)
    refused(here, root, "keys.token", "keys", "list")
    (root / "pin").write_text(pin)
    (root / "pin").chmod(0o644)
    refused(here, root, "keys.too-open", "keys", "list")
    (root / "pin").chmod(0o600)
    for words in (("run",), ("gate",), ("release", "create")):
        ok(here, root, *words)
    assert "digests and signature hold" in ok(here, root, "release", "show", "1.0.0").out
    assert list((root / ".falaj").rglob("*.pem")) == []
    ok(here, root, "keys", "rotate", "root")
    ok(here, root, "release", "show", "1.0.0")


@pytest.mark.parametrize("missing", ["module", "token", "pin_file"])
def test_a_token_needs_all_three_settings(here, tmp_path, missing):
    table = {"module": "m", "token": "t", "pin_file": "p"}
    lines = "".join(f'{name} = "{value}"\n' for name, value in table.items() if name != missing)
    toml = TOML + f'\n[keys]\nstore = "token"\n{lines}'
    done = here(write_project(tmp_path / "p", toml=toml), "keys", "list")
    assert done.code == Exit.USAGE
    assert missing in done.err


# --- sealed at rest ----------------------------------------------------------------------------

PERSONAL = TOML.replace('"internal"', '"personal"') + '\n[encryption]\nat_rest = "personal"\n'


def blobs(root):
    return [p for p in (root / ".falaj/blobs").rglob("*") if p.is_file()]


@pytest.fixture
def sealed(here, tmp_path):
    root = write_project(tmp_path / "sealed", toml=PERSONAL)
    ok(here, root, "run")
    return root


def test_artifacts_of_personal_data_are_sealed(here, sealed):
    found = blobs(sealed)
    assert len(found) > 3
    assert all(path.read_bytes().startswith(fenc.MAGIC) for path in found)
    for words in (("gate",), ("release", "create"), ("run",), ("gc",), ("runs", "show")):
        ok(here, sealed, *words)
    ok(here, sealed, "release", "show", "1.0.0")
    assert len(blobs(sealed)) >= len(found), "nothing that is needed was swept"
    (scope,) = [
        s for s in ok(here, sealed, "keys", "scopes", "--json").json()["data"]
        if s["scope"].startswith("artifacts/")
    ]  # fmt: skip
    assert scope["residency"] == "ae"


@pytest.mark.parametrize("at_rest", ["personal", "nothing"])
def test_other_projects_are_not(here, tmp_path, at_rest):
    toml = TOML + f'\n[encryption]\nat_rest = "{at_rest}"\n'
    root = write_project(tmp_path / "p", toml=toml)
    ok(here, root, "run")
    assert not any(path.read_bytes().startswith(fenc.MAGIC) for path in blobs(root))
    assert not (root / ".falaj/kek").exists()


def test_a_new_key_wraps_all_and_seals_the_rest(here, tmp_path):
    root = write_project(tmp_path / "p", toml=TOML)
    ok(here, root, "run")
    plain = blobs(root)
    (root / "falaj.toml").write_text(TOML + '\n[encryption]\nat_rest = "all"\n')
    ok(here, root, "run")
    done = ok(here, root, "keys", "rewrap", "--json").json()["data"]
    assert done["sealed"] == len(plain)
    assert all(path.read_bytes().startswith(fenc.MAGIC) for path in blobs(root))
    ok(here, root, "gate")
    again = ok(here, root, "keys", "rewrap", "--json").json()["data"]
    assert again["sealed"] == 0
    assert again["kek"] != done["kek"]
    assert [p.stem for p in (root / ".falaj/kek").glob("*.key")] == [again["kek"]]


def test_what_was_erased_is_gone_and_certified(here, sealed):
    ok(here, sealed, "gate")
    month = f"artifacts/{datetime.now(UTC):%Y-%m}"
    refused(here, sealed, "keys.no-scope", "keys", "erase", "artifacts/2020-01", "-m", "x")
    ok(here, sealed, "keys", "erase", month, "-m", "kept for two years", "-o", "erased.json")
    ok(here, sealed, "keys", "trust", "-o", "trust.json")
    trust = open_trust((sealed / "trust.json").read_bytes(), now=NOW)
    envelope = json.loads((sealed / "erased.json").read_text())
    said = dsse.open_envelope(
        envelope,
        keys_for(trust, "log", datetime.now(UTC)),
        kind="application/vnd.falaj.erasure+json",
    ).payload
    assert (said["scope"], said["reason"]) == (month, "kept for two years")
    assert said["complete"][:10] > said["erased"][:10], "when the last copy of the table is gone"
    assert "scope.erased" in ok(here, sealed, "audit", "log").out
    refused(here, sealed, "store.blob-gone", "gate")
    ok(here, sealed, "run")  # made anew, under a new key
    ok(here, sealed, "gate")


def test_sealed_artifacts_are_not_forgotten_by_a_changed_setting(here, sealed):
    (sealed / "falaj.toml").write_text(TOML.replace('"internal"', '"personal"'))
    for words in (("run",), ("keys", "scopes"), ("status",)):
        refused(here, sealed, "keys.still-sealed", *words)


def test_keys_may_not_lie_outside_the_countries_of_the_data(here, tmp_path):
    toml = PERSONAL.replace('purpose = ["tests"]', 'purpose = ["tests"]\ncountries = ["SA"]')
    root = write_project(tmp_path / "p", toml=toml)
    refused(here, root, "keys.residency", "run")
    assert blobs(root) == []


def test_key_encryption_keys_that_others_may_read_stop_everything(here, sealed):
    for path in (sealed / ".falaj/kek").iterdir():
        path.chmod(0o644)
    refused(here, sealed, "keys.too-open", "run", "-p", "slope=2.0")
    (sealed / ".falaj/kek").chmod(0o755)
    refused(here, sealed, "keys.too-open", "status")
