"""`falaj release push` and `pull`: where a release may go, who may send it, and what is kept of it."""

from __future__ import annotations

import json
import shutil
from contextlib import closing

import pytest
from registries import PASSWORD, DockerRegistry, OwnRegistry, auth_file
from small_project import TOML

from falaj.base.errors import Exit
from falaj.links.keyring.keys import KeyRing
from falaj.links.oci.registry import OciRemote


@pytest.fixture(scope="module")
def docker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registry") / "r"
    with closing(DockerRegistry(folder, password=True)) as registry:
        registry.auth = auth_file(folder / "auth.json", registry.host)
        yield registry


@pytest.fixture
def own():
    with closing(OwnRegistry()) as registry:
        yield registry


def lists(root, host, region="ae", toml=TOML):
    """Add the registry to falaj.toml; the address of a repository in it."""
    table = f'\n[[links.remotes]]\naddress = "oci://{host}/team"\nregion = "{region}"\n'
    (root / "falaj.toml").write_text(toml + table)
    return f"oci://{host}/team/flight-delay"


def events(here, root):
    told = here(root, "audit", "log", "--limit", "500", "--json").json()["data"]
    return [e for e in told if e["type"].startswith("falaj.release.") or "release." in e["type"]]


def test_there_and_back(here, workspace, docker, tmp_path):
    at, who = lists(workspace, docker.host), {"REGISTRY_AUTH_FILE": str(docker.auth)}
    done = here(workspace, "release", "push", "1.0.0", at, "--json", **who)
    assert done.code == 0, done.err
    pushed = done.json()["data"]
    assert pushed["tag"] == "1.0.0"
    assert pushed["sent"] > 5
    again = here(workspace, "release", "push", "1.0.0", at, **who)
    assert again.code == 0, again.err
    assert "0 files sent, 0 bytes" in again.out
    pulled = here(workspace, "release", "pull", pushed["address"], "pulled", **who)
    assert pulled.code == 0, pulled.err
    assert "signed by release-signer" in pulled.out
    verified = here(workspace, "verify", "pulled")
    assert verified.code == 0
    assert "everything holds" in verified.out
    # On another machine: no project, the trust root came separately.
    trust = shutil.copy(workspace / ".falaj/keys/trust.json", tmp_path / "trust.json")
    away = tmp_path / "away"
    away.mkdir()
    words = ("release", "pull", f"{at}:1.0.0", "r", "--trust", str(trust), "--json")
    found = here(away, *words, **who)
    assert found.code == 0, found.err
    told = found.json()["data"]
    assert told["published_by"] == "release-signer"
    assert told["address"] == pushed["address"]
    assert pushed["digest"] in found.err, "what the tag stands for is said"
    assert (away / "r/model").is_dir()


def test_what_left_is_in_the_log(here, workspace, own):
    at = lists(workspace, own.host)
    assert here(workspace, "release", "push", "1.0.0", at).code == 0
    told = here(workspace, "audit", "log", "--limit", "500").out
    assert "release.leaving" in told
    assert "release.pushed" in told


def test_what_could_not_be_brought_is_in_the_log_as_leaving(here, workspace, own):
    at = lists(workspace, own.host)
    own.lie("PUT", "manifests", lambda h: h.wrong(403, "DENIED") or True)
    done = here(workspace, "release", "push", "1.0.0", at)
    assert done.code != 0
    assert "remote.denied" in done.err
    told = here(workspace, "audit", "log", "--limit", "500").out
    assert "release.leaving" in told
    assert "release.pushed" not in told


PLACES = {  # region, whole address instead -> code
    "nobody listed it": ("ae", "oci://127.0.0.1:9/other/x", "remote.not-listed"),
    "a neighbour of what is listed": ("ae", "TEAMX", "remote.not-listed"),
    "another country": ("bh", "", "remote.residency"),
    "no address": ("ae", "HOST/team/../x", "remote.bad-address"),
    "a kind that is none": ("ae", "ftp://x/y", "remote.not-listed"),
}


@pytest.mark.parametrize(("region", "instead", "code"), PLACES.values(), ids=PLACES)
def test_where_a_release_may_not_go(here, workspace, own, region, instead, code):
    at = lists(workspace, own.host, region)
    instead = instead.replace("TEAM", at.removesuffix("/flight-delay"))
    instead = instead.replace("HOST", f"oci://{own.host}")
    done = here(workspace, "release", "push", "1.0.0", instead or at)
    assert done.code == Exit.USAGE, done.out
    assert f"error[{code}]" in done.err
    assert own.asked == []
    assert "release.leaving" not in here(workspace, "audit", "log", "--limit", "500").out


def test_rows_about_people_never_travel_in_the_clear(here, tmp_path, own):
    from small_project import write_project

    toml = TOML.replace('classification = "internal"', 'classification = "personal"')
    root = write_project(tmp_path / "people", toml=toml)
    for line in (("run",), ("gate",), ("release", "create")):
        done = here(root, *line)
        assert done.code == 0, done.err
    at = lists(root, own.host, toml=toml)
    done = here(root, "release", "push", "1.0.0", at)
    assert "remote.residency" in done.err
    assert "plain HTTP never carries" in done.err
    assert own.asked == []


@pytest.mark.parametrize("who", ["layla", "zayed", "omar", "noor"])
def test_who_may_not_send_one(here, workspace, own, who):
    at = lists(workspace, own.host)
    done = here(workspace, "--as", who, "release", "push", "1.0.0", at)
    assert done.code == Exit.NOT_ALLOWED, done.err
    assert own.asked == []


def test_a_release_that_was_altered_does_not_leave(here, workspace, own):
    at = lists(workspace, own.host)
    (model,) = (workspace / ".falaj/releases/flight-delay/1.0.0/model").iterdir()
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    done = here(workspace, "release", "push", "1.0.0", at)
    assert done.code == Exit.UNVERIFIED
    assert "releases.tampered" in done.err
    assert model.name in done.err
    assert own.asked == []


def test_without_a_trust_root_nothing_is_asked(here, tmp_path, own):
    done = here(tmp_path, "release", "pull", f"oci://{own.host}/team/x:1", "r")
    assert done.code != 0
    assert "audit.no-trust-root" in done.err
    assert own.asked == []


def test_a_trust_root_of_somebody_else(here, workspace, own, tmp_path):
    at = lists(workspace, own.host)
    assert here(workspace, "release", "push", "1.0.0", at).code == 0
    ring = KeyRing(tmp_path / "other")
    ring.create("releaser", ("release",))
    (tmp_path / "trust.json").write_text(ring.trust_text())
    done = here(tmp_path, "release", "pull", f"{at}:1.0.0", "r", "--trust", "trust.json")
    assert done.code == Exit.UNVERIFIED
    assert "remote.signature" in done.err
    assert not (tmp_path / "r").exists()


def test_a_password_is_never_shown(here, workspace, docker, tmp_path):
    at = lists(workspace, docker.host)
    wrong = auth_file(tmp_path / "wrong.json", docker.host, password="not " + PASSWORD)
    for file in (str(wrong), str(tmp_path / "gone.json")):
        done = here(workspace, "release", "push", "1.0.0", at, REGISTRY_AUTH_FILE=file)
        assert done.code != 0
        assert "sesame" not in done.out + done.err
    assert "remote.bad-credentials" in done.err
    done = here(workspace, "release", "pull", f"oci://aisha:sesame@{docker.host}/a:1", "r")
    assert "sesame" not in done.out + done.err


def test_a_taken_tag_waits_for_a_word(here, workspace, own):
    at = lists(workspace, own.host)
    assert here(workspace, "release", "push", "1.0.0", f"{at}:stable").code == 0
    assert here(workspace, "release", "create", "--version", "1.1.0").code == 0
    done = here(workspace, "release", "push", "1.1.0", f"{at}:stable")
    assert done.code == Exit.CONFLICT
    assert "--move-tag" in done.err
    assert here(workspace, "release", "push", "1.1.0", f"{at}:stable", "--move-tag").code == 0


def test_what_is_asked_over_json_is_refused_over_json(here, workspace, own):
    at = lists(workspace, own.host, "bh")
    done = here(workspace, "release", "push", "1.0.0", at, "--json")
    assert json.loads(done.out)["code"] == "remote.residency"


@pytest.fixture
def store(tmp_path):
    from stores import KEY, OwnStore

    with closing(OwnStore()) as found:
        file = tmp_path / "credentials"
        file.write_text(
            f"[default]\naws_access_key_id = {KEY.key}\naws_secret_access_key = {KEY.secret}\n"
        )
        found.environment = {"AWS_SHARED_CREDENTIALS_FILE": str(file)}
        yield found


def with_bucket(root, endpoint, region="ae"):
    table = f'\n[[links.remotes]]\naddress = "s3://models"\nregion = "{region}"\n'
    (root / "falaj.toml").write_text(f'{TOML}{table}endpoint = "{endpoint}"\n')
    return "s3://models/team/delay"


def test_a_bucket_there_and_back(here, workspace, store):
    at = with_bucket(workspace, store.endpoint)
    done = here(workspace, "release", "push", "1.0.0", at, **store.environment)
    assert done.code == 0, done.err
    words = ("release", "pull", f"{at}:1.0.0", "pulled", "--endpoint", store.endpoint)
    found = here(workspace, *words, **store.environment)
    assert found.code == 0, found.err
    assert "in pulled, verified" in found.out
    assert here(workspace, "verify", "pulled").code == 0
    assert "release.pushed" in here(workspace, "audit", "log", "--limit", "500").out


def test_a_bucket_in_another_country(here, workspace, store):
    at = with_bucket(workspace, store.endpoint, region="us")
    done = here(workspace, "release", "push", "1.0.0", at, **store.environment)
    assert "remote.residency" in done.err
    assert store.asked == []


def test_a_bucket_that_was_written_by_somebody_else(here, workspace, store):
    at = with_bucket(workspace, store.endpoint)
    assert here(workspace, "release", "push", "1.0.0", at, **store.environment).code == 0
    name = next(key for key in store.objects if "/model/" in key)
    store.objects[name] = b"x" * len(store.objects[name])
    words = ("release", "pull", f"{at}:1.0.0", "pulled", "--endpoint", store.endpoint)
    found = here(workspace, *words, **store.environment)
    assert found.code == Exit.UNVERIFIED
    assert "remote.wrong-bytes" in found.err
    assert not (workspace / "pulled").exists()


KINDS = {
    ("oci://192.0.2.1/x", None): False,
    ("oci://192.0.2.1/x", True): True,
    ("oci://127.0.0.1:5000/x", None): True,
    ("oci://localhost:5000/x", False): False,
}


@pytest.mark.parametrize(("how", "plain"), KINDS.items())
def test_plain_http_is_for_this_machine_or_said(how, plain):
    with closing(OciRemote(how[0], plain_http=how[1])) as remote:
        assert remote.plain is plain
