"""PyTorch state dicts: a zip of one pickle and the numbers it names. Weights, never code.

No TorchScript (`code/`), no legacy file. Loading is for `torch.load(..., weights_only=True)` alone.
Members: torch/csrc/jit/serialization and torch/serialization.py of PyTorch 2.9.
"""

from __future__ import annotations

import re
from typing import Any, Final

from falaj.evaluation.formats.pickles import Stub, examine
from falaj.evaluation.formats.verdict import Format, Refused
from falaj.evaluation.formats.zips import Archive

__all__ = ["NAMES", "judge", "looks"]

ITEM_BYTES: Final = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}
NAMES: Final = {
    "collections": frozenset({"OrderedDict"}),
    "torch": frozenset({*ITEM_BYTES, "Size"}),
    "torch._utils": frozenset({"_rebuild_parameter", "_rebuild_tensor_v2"}),
}
BESIDE: Final = frozenset(
    {"version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"}
)
PLACE: Final = re.compile(r"cpu|meta|mps|(cuda|xpu|hpu)(:\d{1,4})?")
MOST_BESIDE: Final = 4096


def looks(archive: Archive) -> bool:
    return any(name.endswith("/data.pkl") or name == "data.pkl" for name in archive.names)


def judge(archive: Archive) -> Format:
    roots = {name.partition("/")[0] for name in archive.names if "/" in name}
    if len(roots) != 1 or any("/" not in name for name in archive.names):
        raise Refused("torch with members outside its one folder")
    root = roots.pop()
    inside = {member.name[len(root) + 1 :]: member for member in archive.members}
    tensors = {}
    for name, member in inside.items():
        if re.fullmatch(r"data/\d{1,9}", name):
            tensors[name[5:]] = member
            raw = archive.read(member, nested=True)
            if bytes(raw[:4]) == b"PK\3\4" and bytes(raw[-22:-18]) == b"PK\5\6":
                raise Refused(f"torch with an archive in it: {member.name!r}")
        elif name in BESIDE:
            if len(archive.read(member)) > MOST_BESIDE:
                raise Refused(f"torch with the member {member.name!r}, which is too large")
        elif name != "data.pkl":
            why = "TorchScript, which is code" if name.startswith("code/") else "no state dict"
            raise Refused(f"torch with the member {member.name!r} ({why})")
    if "data.pkl" not in inside:
        raise Refused("torch without data.pkl at its place")
    used: set[str] = set()

    def storage(pid: Any) -> Stub:
        """('storage', kind, key, place, elements): its bytes are a member, of just that size."""
        match pid:
            case ("storage", kind, str(key), str(place), int(count)) if (
                isinstance(kind, type)
                and issubclass(kind, Stub)
                and kind.module == "torch"
                and kind.name in ITEM_BYTES
                and PLACE.fullmatch(place)
                and key in tensors
                and tensors[key].size == count * ITEM_BYTES[kind.name]
            ):
                used.add(key)
                return kind()
            case _:
                raise Refused("torch with a tensor that does not fit its bytes")

    pickle = bytes(archive.read(inside["data.pkl"]))
    found = examine(pickle, NAMES, persistent=storage)
    if found.pickles != 1:
        raise Refused("torch with several pickles behind each other")
    root_value = found.values[0]
    ordered = isinstance(root_value, Stub) and root_value.name == "OrderedDict"
    if not ordered and not isinstance(root_value, dict):
        raise Refused("torch that holds no state dict")
    if used != tensors.keys():
        raise Refused("torch with bytes that no tensor names")
    return Format("torch", {"bytes": len(archive.data), "tensors": len(tensors)})
