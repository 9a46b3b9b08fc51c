"""OCI registries for tests: Debian's docker-registry, and one of our own that can lie."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

from liar import Liar

import parts
from falaj.base import canonical, digests, dsse
from falaj.facts.attestations import PUBLISHED, statement
from falaj.journeys.remotes import pull
from falaj.links.oci.registry import OciRemote
from falaj.links.s3.remote import S3Remote
from falaj.ports.remotes import Parcel
from falaj.releases.verify import scan

USER, PASSWORD = "aisha", "open sesame"
# bcrypt of PASSWORD; docker-registry reads no other form.
HTPASSWD = "aisha:$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW\n"
SILENT = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "OTEL_TRACES_EXPORTER": "none"}


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class DockerRegistry:
    """A real one in a folder of its own, without root, gone with the test."""

    def __init__(self, folder, *, password=False):
        self.folder = folder
        folder.mkdir(parents=True)
        program = parts.program("docker-registry")
        self.process = None
        auth = ""
        if password:
            (folder / "htpasswd").write_text(HTPASSWD)
            auth = f"auth:\n  htpasswd: {{realm: falaj, path: {folder / 'htpasswd'}}}\n"
        for _ in range(3):  # another test may take the port in between
            self.host = f"127.0.0.1:{free_port()}"
            (folder / "registry.yml").write_text(
                "version: 0.1\nlog: {level: info}\n"
                f"storage:\n  filesystem: {{rootdirectory: {folder / 'store'}}}\n"
                "  delete: {enabled: true}\n"
                f"http: {{addr: '{self.host}'}}\n{auth}"
            )
            self.process = subprocess.Popen(
                [program, "serve", str(folder / "registry.yml")],
                cwd=folder,
                env={**SILENT, "HOME": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=(folder / "log").open("wb"),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            if self.ready():
                return
        raise AssertionError("it did not start:\n" + (folder / "log").read_text()[-2000:])

    def ready(self):
        end = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError):
                if self.ask("GET", "/v2/")[0] in (200, 401):
                    return True
            time.sleep(0.02)
        self.close()
        return False

    def ask(self, method, path, body=None, headers=None):
        line = http.client.HTTPConnection(self.host, timeout=10)
        try:
            line.request(method, path, body, headers or {})
            answer = line.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            line.close()

    def close(self):
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class OwnRegistry(Liar):
    """In memory: what a registry may do besides, and lies.

    auth: "" | "basic" | "bearer". referrers: it has the API and sets OCI-Subject.
    """

    def __init__(self, *, auth="", referrers=False, tls=None):
        self.blobs, self.manifests, self.kinds = {}, {}, {}
        self.auth, self.referrers = auth, referrers
        self.tokens, self.uploads, self.realm = 0, 0, ""
        super().__init__(tls=tls)

    def error(self, code):
        return json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()

    def put(self, data, *references, kind="application/vnd.oci.image.manifest.v1+json"):
        for reference in (digest_of(data), *references):
            self.manifests[reference], self.kinds[reference] = data, kind
        return digest_of(data)

    def answer(self, h):
        parts_ = urlsplit(h.path)
        if parts_.path == "/token":
            return self.token(h, parse_qs(parts_.query))
        if not self.let_in(h):
            return None
        found = re.fullmatch(
            r"/v2/(.+)/(blobs/uploads|blobs|manifests|referrers)/(.*)", parts_.path
        )
        if not found:
            return h.wrong(404, "NAME_UNKNOWN")
        _, what, rest = found.groups()
        if what == "blobs/uploads" and h.command == "POST":
            self.uploads += 1
            return h.answer(202, Location=f"{h.path}{self.uploads}?state=x")
        if what == "blobs/uploads" and h.command == "PUT":
            digest = parse_qs(parts_.query)["digest"][0]
            if digest_of(h.body) != digest:
                return h.wrong(400, "DIGEST_INVALID")
            self.blobs[digest] = h.body
            return h.answer(201, Docker_Content_Digest=digest)
        if what == "blobs":
            return self.blob(h, rest)
        if what == "manifests" and h.command == "PUT":
            digest = self.put(h.body, rest, kind=h.headers["content-type"])
            about = json.loads(h.body).get("subject", {}).get("digest")
            more = {"OCI_Subject": about} if self.referrers and about else {}
            return h.answer(201, Docker_Content_Digest=digest, **more)
        if what == "manifests" and rest in self.manifests:
            data = self.manifests[rest]
            return h.answer(
                200, data, Content_Type=self.kinds[rest], Docker_Content_Digest=digest_of(data)
            )
        if what == "referrers" and self.referrers:
            return h.answer(
                200, self.list_of(rest), Content_Type="application/vnd.oci.image.index.v1+json"
            )
        return h.wrong(404, "MANIFEST_UNKNOWN")

    def blob(self, h, digest):
        if digest not in self.blobs:
            return h.wrong(404, "BLOB_UNKNOWN")
        data = self.blobs[digest]
        begin = re.fullmatch(r"bytes=(\d+)-", h.headers.get("range", ""))
        if begin:
            at = int(begin[1])
            told = f"bytes {at}-{len(data) - 1}/{len(data)}"
            return h.answer(206, data[at:], Content_Range=told)
        return h.answer(200, data)

    def list_of(self, digest):
        found = []
        for reference, data in self.manifests.items():
            told = json.loads(data)
            if reference == digest_of(data) and told.get("subject", {}).get("digest") == digest:
                found.append(
                    {
                        "mediaType": self.kinds[reference],
                        "digest": reference,
                        "size": len(data),
                        "artifactType": told["artifactType"],
                    }
                )
        return json.dumps({"schemaVersion": 2, "manifests": found}).encode()

    def let_in(self, h):
        who = h.headers.get("authorization", "")
        if self.auth == "basic" and who != basic():
            h.wrong(401, "UNAUTHORIZED", WWW_Authenticate='Basic realm="own"')
            return False
        if self.auth == "bearer" and who != f"Bearer token-{self.tokens}":
            realm = self.realm or f"{self.scheme}://{self.host}/token"
            challenge = f'Bearer realm="{realm}",service="own",scope="repository:others:push"'
            h.wrong(401, "UNAUTHORIZED", WWW_Authenticate=challenge)
            return False
        return True

    def token(self, h, query):
        form = parse_qs(h.body.decode())
        if form.get("refresh_token") != ["identity"] and h.headers.get("authorization") != basic():
            return h.wrong(401, "UNAUTHORIZED")
        assert (query or form)["scope"][0].startswith("repository:team/delay:pull")
        self.tokens += 1
        return h.answer(200, json.dumps({"token": f"token-{self.tokens}"}).encode())


def basic(user=USER, password=PASSWORD):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def auth_file(path, host, user=USER, password=PASSWORD):
    """docker's config.json with one name."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": pair}}}))
    return path


def parcel(made, **other):
    files = scan(made.folder).files
    return Parcel(
        id=made.id,
        model="delay",
        version=made.version,
        created=datetime(2026, 3, 1, tzinfo=UTC),
        files=other.get("files", files),
        digests={path: digests.of_file(file) for path, file in other.get("files", files).items()},
    )


def signing(house, made, *, signer="releaser", about=None):
    def sign(digest, there):
        if there:
            return None
        said = statement(PUBLISHED, "delay", about or digest, {"release": made.id})
        return canonical.dumps(dsse.seal(said, house.ring.signer(signer)))

    return sign


def opened(address, store=None, **how):
    """The adapter of an address; store: that the bucket lies in."""
    if store is None:
        return OciRemote(address, **how)
    how.setdefault("login", lambda: (store.credentials, ""))
    return S3Remote(address, store.endpoint, **how)


def push(house, made, address, *, move=False, **how):
    with closing(opened(address, **how)) as remote:
        return remote.push(parcel(made), signing(house, made), move=move)


def fetch(house, address, folder, **how):
    with closing(opened(address, **how)) as remote:
        return pull(remote, folder, house.ring.trust(), now=datetime.now(UTC))


def same(one, two):
    a, b = scan(one), scan(two)
    assert a.findings == b.findings == ()
    return {n: p.read_bytes() for n, p in a.files.items()} == {
        n: p.read_bytes() for n, p in b.files.items()
    }
