"""A sealed file that grows: `.fenc` in frames, written by one who cannot read it.

    "FENC\\0\\x01\\r\\n" | u32 length of the header | header, JSON | frame 0 | frame 1 | ...
    frame i: u32 length | AES-256-GCM(key, nonce = prefix || u32 i || last flag, SHA-256(all before frame 0))

The writer has the public half of a key (X25519). It draws a key pair for the file, agrees on the file's
key, and forgets: HKDF-SHA-256 over the shared secret, bound to both public keys. Who has the private half
reads. Each frame is whole by itself, so a file whose writer was killed is read to its last whole frame; a
finished one ends with an empty frame that bears the last flag, so that nobody can cut it.

Anybody with the public half can write another file: what is sealed here is kept from eyes and from
unseen change, and is no signature of whoever wrote it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from falaj.base.fenc import HEADER, MAGIC, TAG, Unsealable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["ALG", "Frame", "LogWriter", "frames", "public_of"]

ALG: Final = "X25519-A256GCM-FRAMES"
FRAME: Final = 16 << 20  # bytes at most
LENGTH: Final = 4
END: Final = LENGTH + TAG  # bytes of the empty frame that ends a file

Opener = Callable[[Mapping[str, str]], bytes]
"""The private half, 32 bytes, for what a header says in the clear. Raises Unsealable: erased."""


def public_of(private: bytes) -> bytes:
    """The half that is given to writers."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


class LogWriter:
    """Seals one file. head: to be written before the first frame. labels: told in the clear, bound."""

    def __init__(self, public: bytes, labels: Mapping[str, str]) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import (
            X25519PrivateKey,
            X25519PublicKey,
        )
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        own = X25519PrivateKey.generate()
        mine = own.public_key().public_bytes_raw()
        self._prefix, self._number = os.urandom(7), 0
        said = {
            **labels,
            "alg": ALG,
            "by": base64.b64encode(mine).decode(),
            "prefix": base64.b64encode(self._prefix).decode(),
        }
        header = json.dumps(said, sort_keys=True, separators=(",", ":")).encode()
        self.head = MAGIC + struct.pack(">I", len(header)) + header
        shared = own.exchange(X25519PublicKey.from_public_bytes(public))
        self._cipher = AESGCM(_agreed(shared, mine, public))
        self._bound = hashlib.sha256(self.head).digest()

    def frame(self, data: bytes, *, last: bool = False) -> bytes:
        """The next frame. It is written whole or the file is given up: no number is used twice."""
        nonce = self._prefix + struct.pack(">IB", self._number, last)
        self._number += 1
        sealed = self._cipher.encrypt(nonce, data, self._bound)
        return struct.pack(">I", len(sealed)) + sealed


class Frame(NamedTuple):
    """start, end: where it lies in the file."""

    start: int
    end: int
    data: bytes


def frames(
    source: BinaryIO, private: Opener, *, object: str, offset: int = 0, whole: bool = False
) -> Iterator[Frame]:
    """Verified frames that end behind `offset`. Raises Unsealable, and then gave no byte of that frame.

    whole: its writer finished it. Otherwise a torn frame at its end is left out: its writer still
    works, or was killed.
    """
    size = source.seek(0, os.SEEK_END)
    if offset and (offset == size or (whole and offset == size - END)):
        return  # nothing was added since
    source.seek(0)
    head, said = _header(source, whole=whole)
    if not head:
        return
    if said.get("object") != object:
        raise Unsealable("it was sealed as another file")
    start, number, ended = len(head), 0, False
    cipher = None
    while start < size:
        text = source.read(LENGTH)
        (length,) = struct.unpack(">I", text) if len(text) == LENGTH else (0,)
        end = start + LENGTH + length
        torn = len(text) < LENGTH or end > size
        if torn and not whole:
            return
        if torn or ended or not TAG <= length <= FRAME + TAG:
            raise Unsealable(f"frame {number} was altered, or the file was cut")
        if end <= offset:
            source.seek(length, os.SEEK_CUR)
        else:
            cipher = cipher or _cipher(said, private)
            data, ended = _opened(cipher, said, number, source.read(length), head)
            if not ended:
                yield Frame(start, end, data)
        start, number = end, number + 1
    if whole and not ended:
        raise Unsealable("the file was cut")


def _header(source: BinaryIO, *, whole: bool) -> tuple[bytes, dict[str, str]]:
    start = source.read(len(MAGIC) + LENGTH)
    if len(start) < len(MAGIC) + LENGTH and not whole and MAGIC.startswith(start[: len(MAGIC)]):
        return b"", {}  # its writer was killed at the first byte
    if len(start) != len(MAGIC) + LENGTH or not start.startswith(MAGIC):
        raise Unsealable("it is not a sealed file")
    (size,) = struct.unpack(">I", start[len(MAGIC) :])
    text = source.read(size) if size <= HEADER else b""
    if len(text) < size <= HEADER and not whole:
        return b"", {}
    try:
        said = json.loads(text)
        good = len(text) == size and said["alg"] == ALG
        good = good and len(base64.b64decode(said["prefix"], validate=True)) == 7
        good = good and len(base64.b64decode(said["by"], validate=True)) == 32
    except (ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise Unsealable("its header was altered")
    return start + text, {name: str(value) for name, value in said.items()}


def _cipher(said: Mapping[str, str], private: Opener) -> AESGCM:
    from cryptography.hazmat.primitives.asymmetric.x25519 import (
        X25519PrivateKey,
        X25519PublicKey,
    )
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key = private(said)
    theirs = base64.b64decode(said["by"])
    try:
        shared = X25519PrivateKey.from_private_bytes(key).exchange(
            X25519PublicKey.from_public_bytes(theirs)
        )
    except ValueError:  # a point of small order
        raise Unsealable("its header was altered") from None
    return AESGCM(_agreed(shared, theirs, public_of(key)))


def _opened(
    cipher: AESGCM, said: Mapping[str, str], number: int, sealed: bytes, head: bytes
) -> tuple[bytes, bool]:
    """The frame, and whether it ends the file."""
    from cryptography.exceptions import InvalidTag

    bound, prefix = hashlib.sha256(head).digest(), base64.b64decode(said["prefix"])
    last = len(sealed) == TAG  # only the one that ends a file is empty
    nonce = prefix + struct.pack(">IB", number, last)
    try:
        return cipher.decrypt(nonce, sealed, bound), last
    except InvalidTag:
        raise Unsealable(f"frame {number} was altered, or stood elsewhere") from None


def _agreed(shared: bytes, writer: bytes, reader: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    bound = b"falaj/fenc/frames" + writer + reader
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=bound).derive(shared)
