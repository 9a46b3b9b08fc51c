"""Pickles and joblib files of others: the static rules at the entrance of the sandbox.

What passes here is still not loaded in this process, and never released: it is converted.
"""

from __future__ import annotations

from typing import NamedTuple

from falaj.evaluation.formats.classes import ESTIMATORS, PICKLED
from falaj.evaluation.formats.pickles import Stub, examine, unpacked
from falaj.evaluation.formats.verdict import MOST_BYTES, Refused

__all__ = ["Foreign", "admitted"]


class Foreign(NamedTuple):
    """A pickle of one model whose names are all on the list.

    data: without the compression that joblib may lay around it. kind: the model's class.
    joblib: arrays lie between its operations, which are kept alone, too.
    """

    data: bytes
    kind: str
    names: tuple[str, ...]
    joblib: bool
    operations: bytes


def admitted(data: bytes) -> Foreign:
    """Hold a file against the rules of pickles. Raises Refused, whatever the file holds."""
    try:
        return judged(data)
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"a pickle that could not be read through ({type(error).__name__})") from None


def judged(data: bytes) -> Foreign:
    if not data or len(data) > MOST_BYTES:
        raise Refused(f"it is empty, or of more than {MOST_BYTES} bytes")
    plain = unpacked(data)
    found = examine(plain, PICKLED, arrays=True)
    if found.pickles != 1:
        raise Refused("several pickles behind each other, of which a loader reads the first")
    (root,) = found.values
    if not isinstance(root, Stub) or root.name not in ESTIMATORS.get(root.module, ()):
        raise Refused("a pickle that holds no model")
    names = tuple(sorted({f"{module}.{name}" for module, name in found.names}))
    return Foreign(plain, f"{root.module}.{root.name}", names, bool(found.arrays), found.operations)
