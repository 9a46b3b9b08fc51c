"""Run a project's own tests of its data and models; what they say is evidence about the code."""

from __future__ import annotations

from falaj.base import ids
from falaj.base.errors import FalajError
from falaj.data.odcs import read_contract
from falaj.evaluation import rules
from falaj.facts.access import Permit
from falaj.facts.data import Classification
from falaj.facts.runs import Run
from falaj.facts.testing import TestReport
from falaj.facts.wire import digest
from falaj.ports.ground import Ground

__all__ = ["find", "run"]

OPEN = {Classification.PUBLIC, Classification.INTERNAL}


def run(
    ground: Ground,
    permit: Permit,
    *,
    paths: tuple[str, ...] = (),
    keyword: str = "",
    of_run: str = "",
) -> TestReport:
    """Run the tests and keep the report, whatever it says.

    paths, keyword: which tests; such a report decides no gate. of_run: whose model the tests ask.
    """
    if ground.tester is None:
        raise FalajError("testing.none-here", "no tests can be run here")
    # Before: what is edited meanwhile was not tested.
    code, (environment, _) = ground.code(), ground.environment()
    ground.tell("tests: pytest runs them in a process of its own")
    show_values = is_open(ground)
    done = ground.tester().run(
        ground.root, paths=paths, keyword=keyword, run=of_run, show_values=show_values
    )
    error = done.error
    if error and not show_values:
        error = "pytest could not begin; its words may hold protected values and are not kept"
    chosen = (*paths, *((f"-k {keyword}",) if keyword else ()))
    report = TestReport(
        id=ids.new(),
        at=ground.now(),
        person=permit.person,
        verdict=rules.verdict_of_tests(done.tests, done.error),
        tree=code.tree,
        code=code,
        environment=environment,
        tests=done.tests,
        seconds=round(done.seconds, 3),
        selection=chosen,
        models=done.models,
        error=error,
        pytest=done.version,
        junit=ground.blobs.put(rules.junit_of_tests(done.tests, done.seconds).encode()),
        log=ground.blobs.put(done.log) if show_values and done.log else "",
    )
    with ground.store.begin() as unit:
        unit.add(report)
        unit.append(
            ground.event(
                "tests.finished",
                permit.person,
                f"test-report/{report.id}",
                {
                    "digest": digest(report),
                    "verdict": str(report.verdict),
                    "tree": report.tree,
                    "commit": code.commit,
                    "whole": not chosen,
                    **report.counts(),
                },
            )
        )
    return report


def is_open(ground: Ground) -> bool:
    """Whether no dataset, and no column of one, is protected: then messages may show values."""
    classes = {table.classification for table in ground.project.datasets}
    for table in ground.project.datasets:
        if table.contract:
            contract = read_contract(ground.root / table.contract, root=ground.root)
            columns = contract.table(table.name).properties
            classes |= {column.classification for column in columns if column.classification}
    return classes <= OPEN


def find(ground: Ground, *, of_run: Run | None = None, limit: int = 50) -> list[TestReport]:
    """Newest first; of the very code of a run, when one is given."""
    if of_run is None:
        return ground.store.find(TestReport, limit=limit)
    if not of_run.code.tree:
        return []
    return ground.store.find(TestReport, limit=limit, tree=of_run.code.tree)
