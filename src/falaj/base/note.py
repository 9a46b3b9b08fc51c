"""Signed notes: a text, and beneath it one line a signature. Read strictly, written in one spelling.

Sources: https://c2sp.org/signed-note, https://c2sp.org/tlog-cosignature (both v1.0.0).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

__all__ = [
    "COSIGNATURE",
    "ED25519",
    "BadNote",
    "Key",
    "Note",
    "Opened",
    "Signature",
    "cosign",
    "hash_line",
    "key_of_pem",
    "number",
    "open_note",
    "read_hash",
    "read_key",
    "read_note",
    "read_signatures",
    "sign",
    "write_key",
    "write_note",
    "write_pem",
]

ED25519: Final = 0x01
COSIGNATURE: Final = 0x04  # Ed25519 over a time and a checkpoint
KINDS: Final = frozenset({ED25519, COSIGNATURE})
MOST_BYTES: Final = 1 << 20
MOST_SIGNATURES: Final = 100
LATEST: Final = 2**63 - 1
NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}")
DASH: Final = "— "


class BadNote(ValueError):
    """Malformed, or not signed by a key that counts. Says which rule."""


class Key(NamedTuple):
    """A public key under a name. public: the 32 bytes of an Ed25519 key."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        """Four bytes that name it in a signature; no proof of anything."""
        said = self.name.encode() + b"\n" + bytes([self.kind]) + self.public
        return hashlib.sha256(said).digest()[:4]


class Signature(NamedTuple):
    """One line. blob: what follows the key id."""

    name: str
    id: bytes
    blob: bytes

    def line(self) -> str:
        return f"{DASH}{self.name} {base64.b64encode(self.id + self.blob).decode()}\n"


class Note(NamedTuple):
    """text ends with a line break."""

    text: str
    signatures: tuple[Signature, ...]


class Opened(NamedTuple):
    """Who signed: of the keys that were given, each whose signature held. at: seconds of a cosignature."""

    text: str
    by: tuple[tuple[Key, int], ...]

    def names(self, kind: int = ED25519) -> tuple[str, ...]:
        return tuple(key.name for key, _ in self.by if key.kind == kind)


# --- reading ---


def read_note(data: bytes) -> Note:
    """Take a note apart; nothing is verified. Raises BadNote."""
    if len(data) > MOST_BYTES:
        raise BadNote(f"the note is larger than {MOST_BYTES >> 20} MiB")
    words = _words(data)
    head, blank, tail = words.rpartition("\n\n")
    if not blank or not head:
        raise BadNote("the note has no blank line between its text and its signatures")
    return Note(head + "\n", read_signatures(tail))


def read_signatures(words: str) -> tuple[Signature, ...]:
    """Signature lines, one at least, each once. Raises BadNote."""
    lines = words.split("\n")
    if lines.pop() or not lines:
        raise BadNote("the signature lines are cut off")
    if len(lines) > MOST_SIGNATURES:
        raise BadNote(f"more than {MOST_SIGNATURES} signatures")
    found = [_signature(line) for line in lines]
    if len(set(found)) != len(found):
        raise BadNote("a signature stands twice")
    return tuple(found)


def _words(data: bytes) -> str:
    try:
        words = data.decode()
    except UnicodeDecodeError:
        raise BadNote("the note is not UTF-8") from None
    if any(sign < " " and sign != "\n" for sign in words):
        raise BadNote("the note holds a control character")
    return words


def _signature(line: str) -> Signature:
    name, blank, code = line.removeprefix(DASH).partition(" ")
    if not line.startswith(DASH) or not blank:
        raise BadNote(f"not a signature line: {line[:60]!r}")
    _check_name(name)
    raw = _decode(code)
    if len(raw) < 5:
        raise BadNote(f"the signature of {name} is too short")
    return Signature(name, raw[:4], raw[4:])


def _check_name(name: str) -> None:
    if not name or "+" in name or any(sign.isspace() or sign < " " for sign in name):
        raise BadNote(f"{name[:60]!r} is no name of a key")


def _decode(code: str) -> bytes:
    """Base64 in its one spelling."""
    try:
        raw = base64.b64decode(code, validate=True)
    except (binascii.Error, ValueError):
        raise BadNote("base64 is damaged") from None
    if base64.b64encode(raw).decode() != code:
        raise BadNote("base64 is not in its one spelling")
    return raw


def number(words: str) -> int:
    """A whole number as these formats write it: no sign, no zero before it. Raises BadNote."""
    if not NUMBER.fullmatch(words) or int(words) > LATEST:
        raise BadNote(f"got {words[:40]!r}, expected a whole number")
    return int(words)


def hash_line(value: bytes) -> str:
    return base64.b64encode(value).decode()


def read_hash(words: str) -> bytes:
    """A SHA-256 in base64. Raises BadNote."""
    raw = _decode(words)
    if len(raw) != 32:
        raise BadNote(f"a hash has 32 bytes, got {len(raw)}")
    return raw


def open_note(data: bytes, keys: Collection[Key]) -> Opened:
    """Verify, then hand out the text.

    1. Signatures of unknown keys are passed over. 2. One of a known key that does not hold makes
    the whole note bad. 3. At least one has to hold. Raises BadNote.
    """
    note = read_note(data)
    return Opened(note.text, verified(note.text, note.signatures, keys))


def verified(
    text: str, signatures: Sequence[Signature], keys: Collection[Key]
) -> tuple[tuple[Key, int], ...]:
    known: dict[tuple[str, bytes], list[Key]] = {}
    for key in keys:
        known.setdefault((key.name, key.id), []).append(key)
    found: dict[Key, int] = {}
    for signature in signatures:
        fitting = known.get((signature.name, signature.id), [])
        held = [(key, at) for key in fitting if (at := _holds(key, text, signature.blob)) >= 0]
        if fitting and not held:
            raise BadNote(f"the signature of {signature.name} does not hold")
        found |= dict(held)
    if not found:
        raise BadNote("no key that is trusted for this has signed")
    return tuple(found.items())


def _holds(key: Key, text: str, blob: bytes) -> int:
    """The time it was signed at (0 where it says none); -1 when it does not hold."""
    if key.kind == ED25519:
        return 0 if _verify(key.public, blob, text.encode()) else -1
    if key.kind != COSIGNATURE or len(blob) != 72:
        return -1
    at = int.from_bytes(blob[:8], "big")
    held = at <= LATEST and _verify(key.public, blob[8:], _cosigned(at, text))
    return at if held else -1


def _cosigned(at: int, text: str) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def _verify(public: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


# --- writing ---


def sign(text: str, key: Key, signer: Callable[[bytes], bytes]) -> Signature:
    """signer: Ed25519 over a message."""
    return Signature(key.name, key.id, signer(text.encode()))


def cosign(text: str, key: Key, signer: Callable[[bytes], bytes], at: int) -> Signature:
    """Say that at that second this was the largest consistent checkpoint seen. at: Unix seconds."""
    return Signature(key.name, key.id, at.to_bytes(8, "big") + signer(_cosigned(at, text)))


def write_note(text: str, signatures: Sequence[Signature]) -> bytes:
    """Raises BadNote when the text cannot stand in a note."""
    data = (text + "\n" + "".join(one.line() for one in signatures)).encode()
    if read_note(data) != Note(text, tuple(signatures)):
        raise BadNote("the text must end with a line break")
    return data


# --- keys ---


def write_key(key: Key) -> str:
    """As a line for configurations: name+id+base64 (a vkey)."""
    code = base64.b64encode(bytes([key.kind]) + key.public).decode()
    return f"{key.name}+{key.id.hex()}+{code}"


def read_key(words: str) -> Key:
    """Read what `write_key` wrote. Raises BadNote."""
    parts = words.split("+", 2)
    if len(parts) != 3:
        raise BadNote("got no key, expected NAME+ID+KEY")
    name, id_, code = parts
    _check_name(name)
    raw = _decode(code)
    if len(raw) != 33 or raw[0] not in KINDS:
        raise BadNote(f"the key of {name} is not of a kind that is read here (Ed25519)")
    key = Key(name, raw[0], raw[1:])
    if key.id.hex() != id_:
        raise BadNote(f"the id of the key of {name}: got {id_[:16]!r}, expected {key.id.hex()}")
    return key


def key_of_pem(name: str, kind: int, pem: bytes) -> Key | None:
    """The key of a trust root's PEM; None when it is not an Ed25519 key."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        public = serialization.load_pem_public_key(pem)
    except ValueError:
        return None
    if not isinstance(public, Ed25519PublicKey):
        return None
    return Key(name, kind, public.public_bytes_raw())


def write_pem(key: Key) -> str:
    """The public key as PEM, without its name."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    public = Ed25519PublicKey.from_public_bytes(key.public)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(serialization.Encoding.PEM, form).decode()
