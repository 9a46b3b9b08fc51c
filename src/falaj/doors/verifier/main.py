"""falaj-verify: what an auditor runs, on any machine, without a network and without Falaj.

Standard library and `cryptography` alone. Whom to trust comes with `--trust`, never with what is
verified. Ends with 0 when everything holds, with 7 when anything does not, with 2 when it was asked
wrongly.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from falaj.audit.offline import Checked, check_export, check_growth, check_proof
from falaj.audit.verify import verify_pack
from falaj.base import note, time
from falaj.base.checkpoints import Signers
from falaj.base.trust import BadTrust, Root, note_keys, open_root

__all__ = ["main"]

HOLDS, MISUSED, DIFFERS = 0, 2, 7
MOST_FILE: Final = 1 << 26


class Misused(Exception):
    """What was asked cannot be done; says why."""


def main(words: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    asked = parser().parse_args(words)
    try:
        found = asked.check(asked)
    except Misused as error:
        print(f"falaj-verify: {error}", file=sys.stderr)
        return MISUSED
    if asked.json:
        print(json.dumps(document(found), ensure_ascii=False))
    else:
        for line in found.facts:
            print(f"holds   {line}")
        for finding in found.findings:
            print(f"DIFFERS {finding.file or asked.what}: [{finding.code}] {finding.message}")
        number = len(found.findings)
        print(f"{asked.what}: {f'{number} finding(s)' if number else 'everything holds'}")
    return DIFFERS if found.findings else HOLDS


def document(found: Checked) -> dict[str, object]:
    findings = [finding._asdict() for finding in found.findings]
    return {"holds": found.holds, "facts": list(found.facts), "findings": findings}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="falaj-verify",
        description="Check evidence of Falaj offline. The trust root must have come to you on "
        "another way than what you check.",
    )
    kinds = top.add_subparsers(required=True, metavar="KIND")
    pack = kind(kinds, "pack", "an evidence pack", at_pack)
    pack.add_argument(
        "--requires", nargs="*", default=(), metavar="GATE", help="gates each release must pass"
    )
    proof = kind(kinds, "proof", "a .tlog-proof: one event stands in the log", at_proof)
    proof.add_argument("--event", type=Path, help="the event, when it is not in the proof")
    growth = kind(kinds, "growth", "a proof that the log continues what it was", at_growth)
    growth.add_argument(
        "--held", type=Path, required=True, help="the checkpoint that you have kept since then"
    )
    kind(kinds, "export", "a folder with the whole exported log", at_export)
    return top


def kind(kinds: Any, name: str, about: str, check: object) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = kinds.add_parser(
        name, help=about, description=f"Check {about}."
    )
    made.add_argument("what", type=Path, metavar="WHAT", help=about)
    made.add_argument(
        "--trust", type=Path, required=True, help="trust.json, which came on another way"
    )
    made.add_argument(
        "--root", default="", metavar="HEX", help="fingerprint of the root key, when you know it"
    )
    made.add_argument(
        "--witness", action="append", default=[], metavar="KEY", help="NAME+ID+KEY of a witness"
    )
    made.add_argument(
        "--witnesses", type=int, default=0, metavar="N", help="how many of them must have cosigned"
    )
    made.add_argument("--at", default="", metavar="TIME", help="judge keys as of this time")
    made.add_argument("--json", action="store_true", help="print one JSON document")
    made.set_defaults(check=check)
    return made


def at_pack(asked: argparse.Namespace) -> Checked:
    now = at_of(asked)
    report = verify_pack(
        asked.what,
        trust_of(asked, now),
        now=now,
        requires=tuple(asked.requires),
        witnesses=witnesses_of(asked),
        at_least=asked.witnesses,
    )
    return Checked(report.facts() if report.holds else (), report.findings)


def at_proof(asked: argparse.Namespace) -> Checked:
    entry = None if asked.event is None else read(asked.event).removesuffix(b"\n")
    return check_proof(read(asked.what), signers_of(asked), entry=entry)


def at_growth(asked: argparse.Namespace) -> Checked:
    return check_growth(read(asked.what), read(asked.held), signers_of(asked))


def at_export(asked: argparse.Namespace) -> Checked:
    if not asked.what.is_dir():
        raise Misused(f"{asked.what} is no folder")
    return check_export(asked.what, signers_of(asked))


def signers_of(asked: argparse.Namespace) -> Signers:
    now = at_of(asked)
    trust = trust_of(asked, now)
    named = note_keys(trust, "witness", now, note.COSIGNATURE)
    return Signers(
        note_keys(trust, "log", now, note.ED25519), (*witnesses_of(asked), *named), asked.witnesses
    )


def trust_of(asked: argparse.Namespace, now: datetime) -> Root:
    try:
        return open_root(read(asked.trust), now=now, root=asked.root)
    except BadTrust as error:
        raise Misused(f"{asked.trust}: {error}") from None


def witnesses_of(asked: argparse.Namespace) -> tuple[note.Key, ...]:
    try:
        found = tuple(map(note.read_key, asked.witness))
    except note.BadNote as error:
        raise Misused(f"--witness: {error}") from None
    if any(key.kind != note.COSIGNATURE for key in found):
        raise Misused("--witness: that is the key of a log, not of a witness")
    return found


def at_of(asked: argparse.Namespace) -> datetime:
    try:
        return time.parse_instant(asked.at) if asked.at else time.now()
    except ValueError as error:
        raise Misused(f"--at: {error}") from None


def read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_FILE + 1)
    except OSError as error:
        raise Misused(f"{path}: {error.strerror}") from None
    if len(data) > MOST_FILE:
        raise Misused(f"{path} is larger than {MOST_FILE >> 20} MiB")
    return data
