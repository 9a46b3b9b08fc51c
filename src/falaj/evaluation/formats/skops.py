"""skops: a zip of one schema and arrays; every type on the list, class by class.

Loaders that call or look up something are refused whatever they name.
Format: skops 0.11 to 0.16, skops/io.
"""

from __future__ import annotations

from typing import Any, Final

from falaj.evaluation.formats.arrays import judge_npy
from falaj.evaluation.formats.classes import TYPES
from falaj.evaluation.formats.configs import read, tables
from falaj.evaluation.formats.verdict import Format, Refused
from falaj.evaluation.formats.zips import Archive

__all__ = ["LOADERS", "judge", "looks"]

SCHEMA: Final = "schema.json"
# Not here: FunctionNode, MethodNode, PartialNode, OperatorFuncNode (they call), SparseMatrixNode (an
# archive in the archive), BytesNode and BytearrayNode (they hold anything), RandomGeneratorNode (skops
# before 0.16 called whatever name of numpy.random stood in it).
LOADERS: Final = frozenset(
    {
        "CachedNode",
        "ConstructorFromReduceNode",
        "DTypeNode",
        "DefaultDictNode",
        "DictNode",
        "JsonNode",
        "ListNode",
        "LossNode",
        "MaskedArrayNode",
        "NdArrayNode",
        "ObjectNode",
        "RandomStateNode",
        "SetNode",
        "SliceNode",
        "TreeNode",
        "TupleNode",
        "TypeNode",
        "_DictWithDeprecatedKeysNode",
    }
)


def looks(archive: Archive) -> bool:
    return SCHEMA in archive.names


def judge(archive: Archive) -> Format:
    files = set()
    schema: Any = None
    for member in archive.members:
        inner = archive.read(member)
        if member.name == SCHEMA:
            schema = read(bytes(inner), "skops' schema")
        elif "/" not in member.name and member.name.endswith(".npy"):
            judge_npy(inner)
            files.add(member.name)
        else:
            raise Refused(f"skops with the member {member.name!r}")
    if not isinstance(schema, dict) or "__loader__" not in schema:
        raise Refused("skops whose schema says nothing")
    named = set()
    kinds = set()
    for table in tables(schema):
        if not {"__loader__", "__class__", "__module__"} & table.keys():
            continue
        loader, module, kind = (table.get(f"__{key}__") for key in ("loader", "module", "class"))
        if not isinstance(loader, str) or loader not in LOADERS:
            raise Refused(f"skops with the loader {loader!r}, which is not on the list")
        if not isinstance(module, str) or not isinstance(kind, str):
            raise Refused("skops with a node that names no type")
        if kind not in TYPES.get(module, ()):
            raise Refused(f"skops with the type {module}.{kind}, which is not on the list")
        kinds.add(f"{module}.{kind}")
        if "file" in table:
            named.add(table["file"])
    if named != files:
        raise Refused("skops whose schema and members differ")
    version = schema.get("_skops_version", "")
    return Format(
        "skops",
        {
            "bytes": len(archive.data),
            "skops": str(version)[:40],
            "types": sorted(kind for kind in kinds if kind.startswith("sklearn.")),
        },
    )
