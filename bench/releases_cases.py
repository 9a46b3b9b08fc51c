"""What one process of bench/releases.py does: `python -m bench.releases_cases CASE FOLDER [OUT]`."""

from __future__ import annotations

import hashlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

MADE = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = bytes(range(32))
CHUNK = 1 << 20


def make(folder: Path, out: Path) -> None:
    """A release whose model is all files of `folder`, unsigned, and a key ring beside it."""
    from falaj.base import digests
    from falaj.facts.data import Classification, Label
    from falaj.facts.models import Datatype, Schema, Tensor
    from falaj.facts.runs import Code
    from falaj.links.keyring.keys import KeyRing
    from falaj.releases.build import build

    tensor = Tensor(name="x", datatype=Datatype.FP32, shape=(-1, 2))
    build(
        out,
        model="large",
        version="1",
        task="binary-classification",
        runtime="onnx",
        schema=Schema(inputs=(tensor,), outputs=(tensor,)),
        label=Label(classification=Classification.INTERNAL, countries=("AE",)),
        threshold=None,
        code=Code(commit="0" * 40),
        run="01RUN",
        datasets=(),
        created=MADE,
        model_files={path.name: path for path in sorted(folder.iterdir())},
        environment_lock=b"",
        reference={},
        card="",
        mlbom={},
        evidence=[],
    )
    ring = KeyRing(out.parent / "ring")
    ring.create("releaser", ("release",))
    key = (out.parent / "ring" / "releaser.pem").read_bytes()
    (out.parent / "private.pem").write_bytes(key)
    (out.parent / "public.pem").write_bytes(ring.signer("releaser").public)
    assert digests.of_file(out / "release.json")


def sign(folder: Path, out: Path) -> None:
    from falaj.links.keyring.keys import KeyRing
    from falaj.releases.sign import sign_release

    (folder / "signature.json").unlink(missing_ok=True)
    sign_release(folder, KeyRing(out.parent / "ring").signer("releaser"))


def load(folder: Path, out: Path) -> None:
    """Hashed while it is copied into a private folder, then judged: what comes before a model is loaded."""
    from falaj.base.time import now
    from falaj.facts.trust import open_trust
    from falaj.releases.verify import load_verified

    trust = open_trust((folder.parent / "ring" / "trust.json").read_bytes(), now=now())
    load_verified(folder, trust, out, release_id=None, now=now())


def look(folder: Path, _out: Path) -> None:
    """Judged where it lies, as a server does again every hour."""
    from falaj.base.time import now
    from falaj.facts.trust import open_trust
    from falaj.releases.verify import verify_release

    trust = open_trust((folder.parent / "ring" / "trust.json").read_bytes(), now=now())
    assert verify_release(folder, trust, release_id=None, now=now()).holds


def hashes(folder: Path, _out: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256").hexdigest()


def copy(file: Path, out: Path) -> None:
    with file.open("rb") as source, out.open("wb") as target:
        while block := source.read(CHUNK):
            target.write(block)


def seal(file: Path, out: Path) -> None:
    from falaj.base import fenc

    with file.open("rb") as source, out.open("wb") as target:
        fenc.seal(source, target, KEY, {"object": "large"})


def unseal(file: Path, out: Path) -> None:
    from falaj.base import fenc

    with file.open("rb") as source, out.open("wb") as target:
        for block in fenc.opened(source, KEY, object="large"):
            target.write(block)


CASES = {one.__name__: one for one in (make, sign, load, look, hashes, copy, seal, unseal)}


def main() -> None:
    case, folder, out = sys.argv[1:4]
    os.umask(0o077)
    CASES[case](Path(folder), Path(out))


if __name__ == "__main__":
    main()
