"""Declared datasets: their checks and profiles, as far as the class of a column lets them be seen."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from falaj.app import Works
from falaj.doors.api.route import post
from falaj.facts.access import Action, Permit, ResourceKind
from falaj.facts.data import ContractReport, Quarantine, SuiteReport
from falaj.facts.profiles import Profile

__all__ = [
    "ROUTES",
    "AskQuarantine",
    "CheckData",
    "ProfileData",
    "ProposeContract",
    "ProposedContract",
    "TakeIn",
]


class CheckData(msgspec.Struct, forbid_unknown_fields=True):
    dataset: str = ""
    sample_pct: Annotated[float, msgspec.Meta(gt=0, le=100)] | None = None


class AskQuarantine(msgspec.Struct, forbid_unknown_fields=True):
    dataset: str


class ProfileData(msgspec.Struct, forbid_unknown_fields=True):
    dataset: str
    by: str = ""


class ProposeContract(msgspec.Struct, forbid_unknown_fields=True):
    dataset: str


class TakeIn(msgspec.Struct, forbid_unknown_fields=True):
    dataset: str
    report: str  # the file's text


class ProposedContract(msgspec.Struct):
    dataset: str
    contract: str


# Whoever may make the data gate's checks may look: it costs the machine a pass over all rows.


@post("/data/check", needs=Action.CHECK_GATE, on=ResourceKind.PROJECT)
def check_data(works: Works, data: CheckData) -> list[ContractReport]:
    """Hold a dataset against its contract; all that have one, without a name."""
    from falaj.journeys import datasets

    return list(datasets.check(works.ground, data.dataset, sample_pct=data.sample_pct))


@post("/data/quarantine", needs=Action.CHECK_GATE, on=ResourceKind.PROJECT)
def quarantined_data(works: Works, data: AskQuarantine) -> Quarantine:
    """The rows of a dataset that break its contract, values as they may be shown."""
    from falaj.journeys import datasets

    return datasets.quarantine(works.ground, data.dataset)


@post("/data/profile", needs=Action.CHECK_GATE, on=ResourceKind.PROJECT)
def profile_data(works: Works, data: ProfileData) -> Profile:
    """Measure a dataset: nulls, quantiles, frequent values, correlations, rates by group."""
    from falaj.journeys import datasets

    return datasets.profiled(works.ground, data.dataset, by=data.by)


@post("/data/contract", needs=Action.CHECK_GATE, on=ResourceKind.PROJECT)
def propose_contract(works: Works, data: ProposeContract) -> ProposedContract:
    """Propose a contract from the rows of a dataset."""
    from falaj.journeys import datasets

    text = datasets.proposed(works.ground, data.dataset)
    return ProposedContract(dataset=data.dataset, contract=text)


@post("/data/suites", needs=Action.CHECK_GATE, on=ResourceKind.PROJECT, status=201)
def take_in_suite(works: Works, permit: Permit, data: TakeIn) -> SuiteReport:
    """Take in the report of another tool's suite; the gate `data` counts it."""
    from falaj.journeys import datasets

    return datasets.take_in(works.ground, permit, data.dataset, data.report)


ROUTES: Final = (check_data, profile_data, propose_contract, quarantined_data, take_in_suite)
