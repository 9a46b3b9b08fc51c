"""A release as paths and digests: the OpenSSF Model Signing bundle and all that must agree with it.

Pure: works on a listing of digests and a reader of small files, so that a folder on disk and a
folder inside an evidence pack are judged by the same lines.
Formats: Sigstore bundle v0.3 (https://docs.sigstore.dev/about/bundle/), OpenSSF Model Signing v1.0
(https://github.com/ossf/model-signing-spec), in-toto Statement v1.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from falaj.base import canonical, digests, dsse, paths
from falaj.base.predicates import (
    CODE_SCAN,
    GATE,
    PROVENANCE,
    STATEMENT_TYPE,
    TEST_RESULT,
    VULNERABILITIES,
)
from falaj.base.predicates import MODEL_SIGNING as PREDICATE

__all__ = [
    "APPROVED",
    "Certified",
    "Content",
    "Examined",
    "Finding",
    "Keys",
    "evidence_digest",
    "evidence_of",
    "examine",
    "is_bundle",
    "open_bundle",
    "required",
    "seal_bundle",
    "spelled",
    "statement_of",
    "subject_of",
    "test_result",
    "wanted_paths",
]

MEDIA: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
# Predicate types that prove something here; others are kept but prove nothing.
APPROVED: Final = (GATE, PROVENANCE, VULNERABILITIES, CODE_SCAN, TEST_RESULT)
JUDGED: Final = (GATE, VULNERABILITIES, CODE_SCAN, TEST_RESULT)  # by role gate alone

RELEASE: Final = "release.json"
SIGNATURE: Final = "signature.json"
SIGNATURES: Final = "signatures/"
EVIDENCE: Final = "evidence/"
MODEL: Final = "model/"
IGNORED: Final = (
    ".git",
    ".gitattributes",
    ".github",
    ".gitignore",
    "signature.json",
    "signatures",
)
SERIALIZATION: Final = {
    "method": "files",
    "hash_type": "sha256",
    "allow_symlinks": False,
    "ignore_paths": list(IGNORED),
}

Keys = Callable[[str], Mapping[str, bytes]]
"""Role -> hint -> public PEM of those who may sign in it."""

Certified = Callable[[Sequence[bytes]], tuple[str, str, bytes]]
"""Certificates (DER, the leaf first) -> identity, hint, public PEM. Raises ValueError, saying why."""


class Finding(NamedTuple):
    """One thing that does not hold. `file`: which file differs, relative; empty for the whole."""

    code: str
    file: str
    message: str


class Content(NamedTuple):
    """What lies there. `read` returns the bytes of one small file (at most 16 MiB are asked for)."""

    digests: Mapping[str, str]
    read: Callable[[str], bytes]


class Examined(NamedTuple):
    """`manifest`: release.json as it was read, None when it cannot be read at all."""

    id: str
    manifest: dict[str, Any] | None
    statements: Mapping[str, dict[str, Any]]  # evidence file -> statement whose signature held
    signers: Mapping[str, str]  # hint -> bundle file
    findings: tuple[Finding, ...]
    identities: tuple[str, ...] = ()  # of the signers, distinct


def is_bundle(path: str) -> bool:
    return path == SIGNATURE or path.startswith(SIGNATURES)


def evidence_digest(files: Mapping[str, str]) -> str:
    """What approvals bind to: the digest over the evidence files of a release."""
    return digests.of_tree(evidence_of(files))


def evidence_of(files: Mapping[str, str]) -> dict[str, str]:
    """Those of the files (path -> digest) that are evidence."""
    return {path: digest for path, digest in files.items() if path.startswith(EVIDENCE)}


def seal_bundle(
    name: str, files: Mapping[str, str], signer: dsse.Signs, chain: Sequence[bytes] = ()
) -> bytes:
    """The bytes of signature.json over `files` (path -> digest), bundles not among them.

    chain: certificates (DER) of the signer's key, the leaf first; without one its hint is told.
    """
    material: dict[str, Any] = (
        {
            "x509CertificateChain": {
                "certificates": [{"rawBytes": base64.b64encode(der).decode()} for der in chain]
            }
        }
        if chain
        else {"publicKey": {"hint": dsse.hint_of(signer.public)}}
    )
    raw = b"".join(bytes.fromhex(files[path].removeprefix("sha256:")) for path in sorted(files))
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": hashlib.sha256(raw).hexdigest()}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": SERIALIZATION,
            "resources": [
                {
                    "name": path,
                    "algorithm": "sha256",
                    "digest": files[path].removeprefix("sha256:"),
                }
                for path in sorted(files)
            ],
        },
    }
    body = canonical.dumps(statement)
    signature = signer.sign(dsse.pae(dsse.STATEMENT, body))
    return canonical.dumps(
        {
            "mediaType": MEDIA,
            "verificationMaterial": {**material, "tlogEntries": []},
            "dsseEnvelope": {
                "payload": base64.b64encode(body).decode(),
                "payloadType": dsse.STATEMENT,
                "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
            },
        }
    )


class Signed(NamedTuple):
    """A bundle whose signature held: path -> digest, and the hint of the key that made it.

    identity: whom the certificate names; empty when the key itself is known.
    """

    files: Mapping[str, str]
    hint: str
    identity: str = ""


def open_bundle(
    data: bytes,
    keys: Mapping[str, bytes],
    *,
    one_spelling: bool = True,
    certified: Certified | None = None,
) -> Signed:
    """Verify a bundle strictly, then parse it. Raises dsse.BadEnvelope.

    one_spelling: the bytes must be canonical JSON, so that no byte of the file is free.
    certified: judges certificates; without it a bundle that has some is refused.
    """
    try:
        bundle = spelled(data) if one_spelling else canonical.loads(data)
    except canonical.NotCanonical as error:
        raise dsse.BadEnvelope(str(error)) from None
    match bundle:
        case {
            "mediaType": str(media),
            "verificationMaterial": dict(material),
            "dsseEnvelope": {
                "payload": str(payload),
                "payloadType": str(kind),
                "signatures": [{"sig": str(sig), **sig_rest}],
                **envelope_rest,
            },
            **rest,
        }:
            pass
        case _:
            raise dsse.BadEnvelope("not a Sigstore bundle with one key and one signature")
    if media != MEDIA:
        raise dsse.BadEnvelope(f"media type: got {media}, expected {MEDIA}")
    if material.pop("tlogEntries", []) != [] or rest or envelope_rest:
        raise dsse.BadEnvelope(UNSIGNED)
    if kind != dsse.STATEMENT:
        raise dsse.BadEnvelope(f"payload type: got {kind}, expected {dsse.STATEMENT}")
    signer = _signer(material, keys, certified)
    if sig_rest.pop("keyid", "") not in {"", signer.hint} or sig_rest:
        raise dsse.BadEnvelope(UNSIGNED)
    body = dsse.decode(payload)
    if not dsse.verify(signer.public, dsse.decode(sig), dsse.pae(kind, body)):
        raise dsse.BadEnvelope(f"signature by key {signer.hint[:16]} does not hold")
    try:
        return Signed(_resources(canonical.loads(body)), signer.hint, signer.identity)
    except canonical.NotCanonical as error:
        raise dsse.BadEnvelope(f"payload: {error}") from None


UNSIGNED: Final = "the bundle holds fields that nobody signs"


class Signer(NamedTuple):
    hint: str
    public: bytes
    identity: str = ""


def _signer(
    material: dict[str, Any], keys: Mapping[str, bytes], certified: Certified | None
) -> Signer:
    """Whose key the bundle names, by its hint or by certificates; nothing else beside it."""
    match material:
        case {"publicKey": {"hint": str(hint), **others}, **rest}:
            if others or rest:
                raise dsse.BadEnvelope(UNSIGNED)
            if hint not in keys:
                raise dsse.BadEnvelope(
                    f"key {hint[:16]} is not trusted to sign releases at this time"
                )
            return Signer(hint, keys[hint])
        case {"x509CertificateChain": {"certificates": list(given), **others}, **rest}:
            if others or rest:
                raise dsse.BadEnvelope(UNSIGNED)
            if certified is None:
                raise dsse.BadEnvelope("certificates are not taken here")
            chain = []
            for one in given:
                match one:
                    case {"rawBytes": str(text), **more} if not more:
                        chain.append(dsse.decode(text))
                    case _:
                        raise dsse.BadEnvelope("a certificate is malformed")
            try:
                identity, hint, public = certified(chain)
            except ValueError as error:
                raise dsse.BadEnvelope(f"certificate: {error}") from None
            return Signer(hint, public, identity)
    raise dsse.BadEnvelope("not a Sigstore bundle with one key and one signature")


def spelled(data: bytes) -> Any:
    """Read canonical JSON; raises NotCanonical also for any other spelling of the same value."""
    value = canonical.loads(data)
    try:
        if canonical.dumps(value) != data:
            raise canonical.NotCanonical("it is not canonical JSON")
    except RecursionError:
        raise canonical.NotCanonical("it is nested too deep") from None
    return value


def _resources(statement: Any) -> dict[str, str]:
    match statement:
        case {
            "_type": str(kind),
            "subject": [{"digest": {"sha256": str(total)}}],
            "predicateType": str(predicate),
            "predicate": {"serialization": dict(serialization), "resources": list(resources)},
        }:
            pass
        case _:
            raise dsse.BadEnvelope("not a model signing statement")
    if kind != STATEMENT_TYPE or predicate != PREDICATE:
        raise dsse.BadEnvelope(f"statement: got {kind} {predicate}, expected {PREDICATE}")
    ignored = serialization.get("ignore_paths")
    # A further signer also names its own file, which lies under an ignored path already.
    if (
        not isinstance(ignored, list)
        or {str(path) for path in ignored if not str(path).startswith(SIGNATURES)} != set(IGNORED)
        or {**serialization, "ignore_paths": list(IGNORED)} != SERIALIZATION
    ):
        raise dsse.BadEnvelope("serialization differs from what Falaj signs")
    files: dict[str, str] = {}
    raw = b""
    for resource in resources:
        match resource:
            case {"name": str(name), "algorithm": "sha256", "digest": str(value)} if (
                digests.is_digest(f"sha256:{value}") and name not in files
            ):
                files[name] = f"sha256:{value}"
                raw += bytes.fromhex(value)
            case _:
                raise dsse.BadEnvelope("a resource is malformed or stands twice")
    if hashlib.sha256(raw).hexdigest() != total:
        raise dsse.BadEnvelope("the subject's digest is not that of the resources")
    return files


def wanted_paths(names: Collection[str]) -> list[Finding]:
    """Folder sanity by names alone: plain, no collision, nothing that bundles leave unsigned."""
    found: list[Finding] = []
    for name in sorted(names):
        why = paths.trouble(name) or ("" if name.isascii() else "is not ASCII")
        if why:
            found.append(Finding("releases.unsafe-path", name, f"the path {name!r} {why}"))
        if any(part.lower().startswith(".git") for part in name.split("/")):
            found.append(
                Finding(
                    "releases.unsafe-path",
                    name,
                    f"{name!r}: model signing leaves .git* unsigned, a release may not hold it",
                )
            )
    found += [
        Finding("releases.unsafe-path", name, f"{name!r} and {other!r} are one file elsewhere")
        for name, other in paths.collisions(names)
    ]
    return found


def examine(
    content: Content,
    keys: Keys,
    *,
    release_id: str | None,
    requires: Sequence[str] = (),
    policy: str | None = None,
    threshold: int = 1,
    identity: Callable[[str], str] = lambda hint: hint,
    certified: Certified | None = None,
) -> Examined:
    """Judge one release; every finding, not the first.

    1. The names are sane. 2. release.json is canonical and its digest is the id asked for.
    3. signature.json and all under signatures/ are strict bundles by keys of role `release`, or by
    certificates that `certified` takes, by at least `threshold` identities. 4. What each signed = what lies there. 5. What release.json lists =
    what lies there; its tree is that of model/. 6. Evidence is signed by role `gate` or `build` and
    speaks about this model; a test result says what its gate says. 7. Each gate in `requires` has a verdict of pass.
    """
    there = content.digests
    found = wanted_paths(there)
    body, text_findings = _read(content, RELEASE)
    found += text_findings
    id_ = digests.of_bytes(body) if body is not None else ""
    manifest: dict[str, Any] | None = None
    if body is not None:
        if release_id is not None and id_ != release_id:
            found.append(
                Finding(
                    "releases.wrong-id",
                    RELEASE,
                    f"release.json is {id_}, asked for was {release_id}",
                )
            )
        manifest, more = _manifest(body)
        found += more

    signers, whose, signed_findings = _bundles(content, keys, threshold, identity, certified)
    found += signed_findings
    if manifest is not None:
        listed = {RELEASE: id_, **manifest["files"]}
        found += differences(listed, there, "listed in release.json")
        inner = {
            path.removeprefix(MODEL): digest
            for path, digest in there.items()
            if path.startswith(MODEL)
        }
        if digests.of_tree(inner) != manifest["tree"]:
            found.append(
                Finding(
                    "releases.tampered",
                    MODEL,
                    "the digest of model/ is not the tree that release.json states",
                )
            )
        if there.get("environment.lock") != manifest["environment"]:
            found.append(
                Finding(
                    "releases.tampered",
                    "environment.lock",
                    "environment.lock is not the one that release.json states",
                )
            )
    statements, more = _evidence(content, keys, manifest)
    found += more
    found += _outsiders(statements)
    found += required(statements, requires, policy)
    return Examined(id_, manifest, statements, signers, _once(found), tuple(sorted(whose)))


def differences(expected: Mapping[str, str], there: Mapping[str, str], words: str) -> list[Finding]:
    """One finding a file that is missing, added or changed; bundles are not counted as added."""
    found = [
        Finding("releases.tampered", path, f"{path} is missing, though {words}")
        for path in sorted(expected.keys() - there.keys())
    ]
    found += [
        Finding("releases.tampered", path, f"{path} was added: it is not {words}")
        for path in sorted(there.keys() - expected.keys())
        if not is_bundle(path)
    ]
    found += [
        Finding(
            "releases.tampered",
            path,
            f"{path} was changed: got {there[path]}, {words} as {expected[path]}",
        )
        for path in sorted(expected.keys() & there.keys())
        if expected[path] != there[path]
    ]
    return found


def _once(found: Sequence[Finding]) -> tuple[Finding, ...]:
    """The first finding of each (code, file); a file that differs is said once."""
    seen: dict[tuple[str, str], Finding] = {}
    for finding in found:
        key = (finding.code, finding.file)
        if finding.code not in {"releases.tampered", "releases.unsafe-path"}:
            key = (finding.code, f"{finding.file}\0{finding.message}")
        seen.setdefault(key, finding)
    return tuple(seen.values())


def _read(content: Content, path: str) -> tuple[bytes | None, list[Finding]]:
    """The bytes that the listing's digest speaks about, or why not."""
    if path not in content.digests:
        return None, [Finding("releases.tampered", path, f"{path} is missing")]
    try:
        data = content.read(path)
    except (OSError, ValueError) as error:
        return None, [Finding("releases.tampered", path, f"{path} cannot be read: {error}")]
    if len(data) > dsse.MAX_BYTES:
        return None, [Finding("releases.malformed", path, f"{path} is larger than 16 MiB")]
    if digests.of_bytes(data) != content.digests[path]:
        return None, [Finding("releases.tampered", path, f"{path} changed while it was read")]
    return data, []


def _manifest(body: bytes) -> tuple[dict[str, Any] | None, list[Finding]]:
    def bad(why: str) -> tuple[None, list[Finding]]:
        return None, [Finding("releases.malformed", RELEASE, f"release.json: {why}")]

    try:
        value = spelled(body)
    except canonical.NotCanonical as error:
        return bad(str(error))
    match value:
        case {"files": dict(files), "tree": str(tree), "environment": str(lock)} if (
            digests.is_digest(tree)
            and digests.is_digest(lock)
            and all(isinstance(d, str) and digests.is_digest(d) for d in files.values())
        ):
            pass
        case _:
            return bad("files, tree or environment are missing or are no digests")
    own = [path for path in files if path == RELEASE or is_bundle(path)]
    if own:
        return bad(f"lists {own[0]}, which cannot know its own digest")
    return value, []


def _bundles(
    content: Content,
    keys: Keys,
    threshold: int,
    identity: Callable[[str], str],
    certified: Certified | None,
) -> tuple[dict[str, str], set[str], list[Finding]]:
    there = content.digests
    found: list[Finding] = []
    signers: dict[str, str] = {}
    whose: set[str] = set()
    wanted = {path: digest for path, digest in there.items() if not is_bundle(path)}
    for path in sorted({SIGNATURE, *filter(is_bundle, there)}):
        data, more = _read(content, path)
        found += more
        if data is None:
            continue
        try:
            signed = open_bundle(
                data, keys("release"), one_spelling=path == SIGNATURE, certified=certified
            )
        except dsse.BadEnvelope as error:
            found.append(Finding("releases.signature", path, f"{path}: {error}"))
            continue
        if path not in {SIGNATURE, f"{SIGNATURES}{signed.hint[:16]}.json"}:
            found.append(Finding("releases.signature", path, f"{path} is not named after its key"))
            continue
        different = differences(signed.files, wanted, f"signed in {path}")
        found += different
        if not different:
            signers.setdefault(signed.hint, path)
            whose.add(signed.identity or identity(signed.hint))
    # Distinct people or services, not keys and not files: the same signer twice is one.
    count = len(whose)
    if count < threshold:
        found.append(
            Finding(
                "releases.signature",
                SIGNATURE,
                f"signed whole by {count} trusted identities, needed are {threshold}",
            )
        )
    return signers, whose, found


def statement_of(envelope: object, keys: Mapping[str, bytes]) -> tuple[dict[str, Any], str]:
    """An in-toto statement with one subject whose signature held, and the key's hint.

    An attestation may be signed with Ed25519, too. Raises dsse.BadEnvelope.
    """
    payload, hint = dsse.open_envelope(envelope, keys, ed25519=True)
    match payload:
        case {
            "_type": str(kind),
            "subject": [{"digest": {"sha256": str(digest)}}],
            "predicateType": str(),
            "predicate": dict(),
        } if kind == STATEMENT_TYPE and digests.is_digest(f"sha256:{digest}"):
            return payload, hint
        case _:
            raise dsse.BadEnvelope("not an in-toto statement with one subject")


def subject_of(statement: Mapping[str, Any]) -> str:
    return f"sha256:{statement['subject'][0]['digest']['sha256']}"


def _evidence(
    content: Content, keys: Keys, manifest: Mapping[str, Any] | None
) -> tuple[dict[str, dict[str, Any]], list[Finding]]:
    held: dict[str, dict[str, Any]] = {}
    found: list[Finding] = []
    for path in sorted(p for p in content.digests if p.startswith(EVIDENCE)):
        data, more = _read(content, path)
        found += more
        if data is None:
            continue
        try:
            envelope = canonical.loads(data)
            statement, hint = statement_of(envelope, {**keys("build"), **keys("gate")})
        except (canonical.NotCanonical, dsse.BadEnvelope) as error:
            found.append(Finding("releases.evidence-invalid", path, f"{path}: {error}"))
            continue
        kind = statement["predicateType"]
        if kind not in APPROVED:
            continue
        if kind in JUDGED and hint not in keys("gate"):
            found.append(
                Finding(
                    "releases.evidence-invalid",
                    path,
                    f"{path}: a verdict signed by key {hint[:16]}, which is not of role gate",
                )
            )
            continue
        if manifest is not None and subject_of(statement) != _spoken_about(kind, manifest):
            what = {VULNERABILITIES: "lock", CODE_SCAN: "code"}.get(kind, "model")
            found.append(
                Finding(
                    "releases.evidence-invalid",
                    path,
                    f"{path} speaks about another {what}: {subject_of(statement)}",
                )
            )
            continue
        held[path] = statement
    return held, found


def _spoken_about(kind: str, manifest: Mapping[str, Any]) -> str:
    """The digest that a statement of this kind has to be about."""
    if kind == VULNERABILITIES:
        return str(manifest["environment"])
    if kind == CODE_SCAN:
        code = manifest.get("code")
        return str(code.get("tree", "")) if isinstance(code, dict) else ""
    return str(manifest["tree"])


def test_result(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """A gate's verdict as in-toto's test-result v0.1 says it: names alone, for who knows no gates.

    What passed has passed. Anything else has failed where the gate was required, also when it was
    waived; where it was only told, it is a warning.
    Source: https://github.com/in-toto/attestation/blob/main/spec/predicates/test-result.md
    """
    given = verdict.get("results")
    results = [r for r in given if isinstance(r, dict)] if isinstance(given, list) else []
    bad = {str(r.get("check")) for r in results if r.get("verdict") != "pass"}
    good = {str(r.get("check")) for r in results} - bad
    needed = verdict.get("required") is True
    worst = "FAILED" if needed else "WARNED"
    return {
        "result": "PASSED" if verdict.get("verdict") == "pass" else worst,
        "configuration": [
            {
                "name": f"{TESTED}{verdict.get('gate')}",
                "digest": {"sha256": str(verdict.get("policy")).removeprefix("sha256:")},
            }
        ],
        "passedTests": sorted(good),
        "warnedTests": [] if needed else sorted(bad),
        "failedTests": sorted(bad) if needed else [],
    }


TESTED: Final = "gate/"  # what a test result calls its gate


def _outsiders(statements: Mapping[str, dict[str, Any]]) -> list[Finding]:
    """What is said to outsiders is what the gate says, and nothing else."""
    verdicts = [s["predicate"] for s in statements.values() if s["predicateType"] == GATE]
    expected = [test_result(verdict) for verdict in verdicts]
    return [
        Finding(
            "releases.evidence-invalid",
            path,
            f"{path}: no gate beside it has this result",
        )
        for path, statement in statements.items()
        if statement["predicateType"] == TEST_RESULT and statement["predicate"] not in expected
    ]


def required(
    statements: Mapping[str, dict[str, Any]], requires: Sequence[str], policy: str | None
) -> list[Finding]:
    """Each of the gates has a verdict of pass, under this policy when one is asked for."""
    gates: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for path, statement in statements.items():
        if statement["predicateType"] == GATE:
            gates.setdefault(str(statement["predicate"].get("gate")), []).append(
                (path, statement["predicate"])
            )
    found: list[Finding] = []
    for gate in requires:
        if gate not in gates:
            found.append(
                Finding(
                    "releases.evidence-missing",
                    f"{EVIDENCE}gate-{gate}.dsse.json",
                    f"no signed verdict for gate '{gate}'",
                )
            )
        for path, predicate in gates.get(gate, []):
            if not _passed(predicate):
                found.append(
                    Finding(
                        "releases.evidence-failed",
                        path,
                        f"gate '{gate}': the verdict is {predicate.get('verdict')!r}, not pass",
                    )
                )
            if policy is not None and predicate.get("policy") != policy:
                found.append(
                    Finding(
                        "releases.evidence-failed",
                        path,
                        f"gate '{gate}': decided under policy {predicate.get('policy')}, "
                        f"asked for is {policy}",
                    )
                )
    return found


def _passed(predicate: Mapping[str, Any]) -> bool:
    """All results pass, or are inconclusive with a waiver that was in force at that time.

    The verdict that is written must agree with the results beneath it; no result is no pass.
    """
    results = predicate.get("results")
    at = predicate.get("at")
    if not isinstance(results, list) or not results or not isinstance(at, str):
        return False
    waived = {
        waiver.get("check")
        for waiver in predicate.get("waivers", [])
        if isinstance(waiver, dict)
        and isinstance(waiver.get("expires"), str)
        and waiver["expires"] > at  # both RFC 3339 in UTC with the same width
    }
    plain = {result.get("verdict") for result in results if isinstance(result, dict)}
    if plain == {"pass"}:
        return predicate.get("verdict") == "pass"
    open_ = {r.get("check") for r in results if isinstance(r, dict) and r.get("verdict") != "pass"}
    return (
        predicate.get("verdict") == "inconclusive"
        and plain <= {"pass", "inconclusive"}
        and open_ <= waived
    )
