"""The gate of model formats: an allow-list by content, everything else is quarantined.

The extension is never asked. Nothing here imports, runs or really unpickles what it reads.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from falaj.evaluation.formats import (
    arrays,
    arrow,
    boosters,
    code,
    configs,
    onnx,
    pickles,
    skops,
    torch,
)
from falaj.evaluation.formats import safetensors as tensors
from falaj.evaluation.formats.verdict import MOST_BYTES, Format, Quarantine, Refused
from falaj.evaluation.formats.zips import Archive

__all__ = ["decide", "decide_bytes"]

HEAD: Final = 9
MOST_TENSORS: Final = 1 << 40  # safetensors: its header alone is read
FAMILIAR: Final = (
    (b"\x89HDF\r\n\x1a\n", "HDF5 (Keras and others), whose layers may hold code"),
    (b"\x1f\x8b", "compressed data (gzip)"),
    (b"BZh", "compressed data (bzip2)"),
    (b"\xfd7zXZ\0", "compressed data (xz)"),
    (b"\x5d\0\0", "compressed data (lzma)"),
    (b"\x78\x01", "compressed data (zlib, as joblib writes it)"),
    (b"\x78\x5e", "compressed data (zlib, as joblib writes it)"),
    (b"\x78\x9c", "compressed data (zlib, as joblib writes it)"),
    (b"\x78\xda", "compressed data (zlib, as joblib writes it)"),
    (b"\x28\xb5\x2f\xfd", "compressed data (zstandard)"),
    (b"\x04\x22\x4d\x18", "compressed data (lz4)"),
    (b"ZF", "compressed data (joblib)"),
    (b"7z\xbc\xaf\x27\x1c", "an archive (7z)"),
    (b"Rar!", "an archive (rar)"),
    (b"PARE", "Parquet that is encrypted"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"#!", "a script"),
    (b"GGUF", "GGUF, which may hold a chat template that is run"),
    (b"\xff\xff\xff\xff", "a stream of Arrow; write it as a file"),
)
ZIP: Final = (b"PK\3\4", b"PK\5\6", b"PK\7\x08")
IN_TAR: Final = slice(257, 262)


def decide(path: Path) -> Format | Quarantine:
    """Say what a file is, by magic bytes and structure. Never raises for what the file holds.

    Raises OSError where it cannot be read, or is a link.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return Quarantine("it is not a regular file")
        head = file.read(HEAD)
        if tensors.begins(head, status.st_size) and status.st_size <= MOST_TENSORS:
            try:
                head += file.read(tensors.header_of(head) + 8 - HEAD)
            except Refused as refused:
                return Quarantine(str(refused))
            return guarded(head, status.st_size)
        if status.st_size > MOST_BYTES:
            return Quarantine(f"{status.st_size} bytes, more than {MOST_BYTES}")
        file.seek(0)
        return decide_bytes(file.read(MOST_BYTES + 1))


def decide_bytes(data: bytes) -> Format | Quarantine:
    """The same for bytes that were read already, so that what is judged is what is loaded."""
    return guarded(data, len(data))


def guarded(data: bytes, size: int) -> Format | Quarantine:
    """The one edge of all parsers: what they cannot judge is quarantined, whatever it raises."""
    try:
        return judged(data, size)
    except Refused as refused:
        return Quarantine(str(refused))
    except Exception as error:
        return Quarantine(f"it could not be read through ({type(error).__name__})")


def judged(data: bytes, size: int) -> Format:
    if not data:
        raise Refused("it is empty")
    if tensors.begins(data[:HEAD], size):
        tensors.header_of(data)
        return tensors.judge(data, size)
    if size > MOST_BYTES:
        raise Refused(f"more than {MOST_BYTES} bytes")
    for magic, words in FAMILIAR:
        if data.startswith(magic):
            raise Refused(f"it is {words}")
    if data.startswith(ZIP):
        return zipped(Archive(data))
    if pickles.begins(data):
        raise Refused("it is a pickle, which runs code when it is loaded")
    if data[IN_TAR] == b"ustar":
        raise Refused("it is an archive (tar), as torch wrote models long ago")
    if code.begins(data):
        return code.judge(data)
    if data.startswith(b"\x93NUMPY"):
        return arrays.judge_npy(data)
    if data.startswith(b"PAR1"):
        return arrow.judge_parquet(data)
    if data.startswith(b"ARROW1"):
        return arrow.judge_arrow(data)
    if data.startswith(b"tree\n"):
        return boosters.judge_lightgbm(data)
    if boosters.begins_ubj(data):
        return boosters.judge_ubj(data)
    if data[:64].lstrip(b" \t\r\n")[:1] in {b"{", b"["}:
        return configs.judge(data)
    try:
        return onnx.judge(data)
    except Refused:
        if data[8:9] == b"{":
            words = "safetensors with a header beyond the file, or of more than 100 MB"
            raise Refused(words) from None
        raise


def zipped(archive: Archive) -> Format:
    """A zip file is what its members say; it is one thing, or nothing."""
    if torch.looks(archive):
        return torch.judge(archive)
    if skops.looks(archive):
        return skops.judge(archive)
    return arrays.judge_npz(archive)
