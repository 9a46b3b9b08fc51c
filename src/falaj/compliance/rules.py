"""Where something may be, by its label. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from falaj.facts.data import Classification, Label

__all__ = ["joined", "may_be_in", "shows_rows"]

ORDER: Final = tuple(Classification)
OPEN: Final = (Classification.PUBLIC, Classification.INTERNAL)


def joined(labels: Sequence[Label], region: str) -> Label:
    """The strictest of all: highest class, countries and purposes that every one allows.

    A label without countries allows what the others do; where none says any, the region's.
    """
    countries = [set(label.countries) for label in labels if label.countries]
    purposes = [set(label.purposes) for label in labels if label.purposes]
    return Label(
        classification=max((x.classification for x in labels), key=ORDER.index)
        if labels
        else Label().classification,
        countries=tuple(sorted(set.intersection(*countries)))
        if countries
        else (region.split("-", maxsplit=1)[0],),
        purposes=tuple(sorted(set.intersection(*purposes))) if purposes else (),
    )


def may_be_in(label: Label, region: str, *, plain_http: bool = False) -> str:
    """Why what bears this label may not be there; nothing where it may.

    1. The region's country stands in the label.
    2. Class personal and above never travels over plain HTTP, on loopback neither.
    """
    country = region.split("-", maxsplit=1)[0].lower()
    if country not in {name.lower() for name in label.countries}:
        allowed = ", ".join(sorted(label.countries)) or "nowhere"
        return f"it may be in {allowed}, and not in {country}"
    if plain_http and ORDER.index(label.classification) >= ORDER.index(Classification.PERSONAL):
        return f"it is of class {label.classification}, which plain HTTP never carries"
    return ""


def shows_rows(label: Label) -> bool:
    """Whether drawings and model files, which may repeat rows, may be shown outside."""
    return label.classification in OPEN
