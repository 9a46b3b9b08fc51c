"""What the metadata of installed packages says about their licences; nothing is imported."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import distributions

from falaj.base.locks import normalised
from falaj.facts.scans import Declared

__all__ = ["read_licences"]


def read_licences(names: Collection[str], path: list[str] | None = None) -> dict[str, Declared]:
    """By normalised name, of those names that are installed here.

    path: folders that are searched instead of this process's own.
    """
    wanted = set(names)
    found: dict[str, Declared] = {}
    for one in distributions() if path is None else distributions(path=path):
        said = one.metadata  # its name and version would each read and parse the whole file
        name = normalised(said["Name"] or "")
        if name not in wanted or name in found:
            continue
        found[name] = Declared(
            package=name,
            version=said["Version"] or "",
            expression=(said["License-Expression"] or "").strip(),
            text=(said["License"] or "").strip()[:2000],
            classifiers=tuple(
                text for text in said.get_all("Classifier") or () if text.startswith("License")
            ),
        )
    return found
