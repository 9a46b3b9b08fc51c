"""`.fenc`: a file sealed in segments, AES-256-GCM. Nothing is handed out before its tag holds.

    "FENC\\0\\x01\\r\\n" | u32 length of the header | header, JSON | segment 0 | segment 1 | ...

Each segment of 1 MiB is sealed under a key of the file's own, which lies in the header, wrapped under
the scope's key: whoever erases that key erases all files of the scope. The nonce counts segments and
marks the last one, the associated data is the digest of all that stands before segment 0, so that
cutting, swapping, doubling, appending and relabelling are all refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final, Protocol

__all__ = ["MAGIC", "KeyErased", "Read", "Unsealable", "labels_of", "opened", "seal"]

MAGIC: Final = b"FENC\0\x01\r\n"
SEG: Final = 1 << 20
TAG: Final = 16
HEADER: Final = 1 << 16  # bytes at most
ALG: Final = "A256GCM-STREAM"


class Read(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class Unsealable(ValueError):
    """Altered, cut, of another object, or sealed under another key. Says which, never the content."""


class KeyErased(Unsealable):
    """Nobody can read it any more, as somebody has asked."""


def seal(source: Read, to: BinaryIO, scope_key: bytes, labels: Mapping[str, str]) -> None:
    """Seal all of `source`.

    Args:
        source: read to its end.
        to: written; nothing is flushed.
        scope_key: 32 bytes.
        labels: told in the clear and bound to the content; `object` says what it is.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.keywrap import aes_key_wrap

    own, prefix = os.urandom(32), os.urandom(7)
    said = {
        **labels,
        "alg": ALG,
        "seg": SEG,
        "dek": base64.b64encode(aes_key_wrap(scope_key, own)).decode(),
        "prefix": base64.b64encode(prefix).decode(),
    }
    header = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
    head = MAGIC + struct.pack(">I", len(header)) + header
    cipher, bound = AESGCM(own), hashlib.sha256(head).digest()
    to.write(head)
    # Three blocks for the whole file: memory that is new for each segment costs more than AES does.
    block, following = memoryview(bytearray(SEG)), memoryview(bytearray(SEG))
    sealed = memoryview(bytearray(SEG + TAG))
    number, size = 0, _fill(source, block)
    while True:
        more = _fill(source, following)
        nonce = prefix + struct.pack(">IB", number, not more)
        cipher.encrypt_into(nonce, block[:size], bound, sealed[: size + TAG])
        to.write(sealed[: size + TAG])
        if not more:
            return
        number, size, block, following = number + 1, more, following, block


def opened(source: BinaryIO, scope_key: bytes, *, object: str) -> Iterator[bytes]:
    """The content in segments, each one verified. Raises Unsealable.

    Whoever writes them away gives the file its name only after the last one came.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    head, said = _header(source)
    if said.get("object") != object:
        raise Unsealable("it was sealed as another object")
    prefix = base64.b64decode(said["prefix"], validate=True)
    cipher, bound = AESGCM(_unwrapped(said, scope_key)), hashlib.sha256(head).digest()
    block, following = memoryview(bytearray(SEG + TAG)), memoryview(bytearray(SEG + TAG))
    number, size = 0, _fill(source, block)
    while True:
        more = _fill(source, following)
        nonce = prefix + struct.pack(">IB", number, not more)
        try:
            yield cipher.decrypt(nonce, block[:size], bound)
        except InvalidTag:
            raise Unsealable(f"segment {number} was altered, or the file was cut") from None
        if not more:
            return
        number, size, block, following = number + 1, more, following, block


def _fill(source: Read, block: memoryview) -> int:
    """Read until the block is full or the source at its end; returns how many bytes there are."""
    into = getattr(source, "readinto", None)
    at = 0
    while at < len(block):
        if into is not None:
            got = into(block[at:])
        else:
            data = source.read(len(block) - at)
            got = len(data)
            block[at : at + got] = data
        if not got:
            break
        at += got
    return at


def labels_of(source: BinaryIO) -> dict[str, str]:
    """What a sealed file says of itself in the clear, not verified: only to choose the key."""
    _, said = _header(source)
    return {name: str(value) for name, value in said.items()}


def _header(source: BinaryIO) -> tuple[bytes, dict[str, Any]]:
    start = source.read(len(MAGIC) + 4)
    if len(start) != len(MAGIC) + 4 or not start.startswith(MAGIC):
        raise Unsealable("it is not a sealed file")
    (size,) = struct.unpack(">I", start[len(MAGIC) :])
    text = source.read(size) if size <= HEADER else b""
    try:
        said = json.loads(text)
        whole = len(text) == size and said["alg"] == ALG and said["seg"] == SEG
        whole = whole and len(base64.b64decode(said["prefix"], validate=True)) == 7
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise Unsealable("its header was altered")
    return start + text, said


def _unwrapped(said: Mapping[str, Any], scope_key: bytes) -> bytes:
    from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

    try:
        return aes_key_unwrap(scope_key, base64.b64decode(said["dek"], validate=True))
    except (InvalidUnwrap, ValueError, KeyError, TypeError):
        raise Unsealable("it was sealed under another key") from None
