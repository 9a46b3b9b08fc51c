"""Scan a project: its lock against the advisories that are here, licences, and its code.

One look makes one `Scan`. The gates `dependencies` and `code` are its results; a release carries it
as statements; `falaj scan` shows it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from falaj.base import digests, ids
from falaj.base.errors import FalajError
from falaj.base.locks import NAMES, Lock, read_lock
from falaj.base.sources import listed
from falaj.evaluation import codescan, licences, vulnerabilities
from falaj.facts.checks import CheckResult, Verdict, worst
from falaj.facts.project import CodeTable, DependenciesTable
from falaj.facts.scans import AdvisoryDatabase, CodeFinding, Licence, Scan, Vulnerability
from falaj.ports.ground import Ground
from falaj.ports.scanners import Scanned

__all__ = [
    "CODE",
    "DEPENDENCIES",
    "ECOSYSTEM",
    "looked_up",
    "newest_database",
    "scan",
    "scan_id",
    "verdict_of",
]

DEPENDENCIES: Final = "dependencies"
CODE: Final = "code"
ECOSYSTEM: Final = "PyPI"  # of what a lock pins


def scan(
    ground: Ground,
    person: str,
    what: Collection[str] = (DEPENDENCIES, CODE),
    *,
    tree: str | None = None,
) -> Scan:
    """Look now; nothing is kept.

    what: `dependencies`, `code` or both, under the project's rules or the usual ones. tree: the code
    that a run was made from; other code that lies here now says nothing about it.
    """
    now = ground.now()
    _, text = ground.environment()
    lock = read_lock(text)
    results: list[CheckResult] = []
    found: tuple[Vulnerability, ...] = ()
    named: tuple[Licence, ...] = ()
    database = newest_database(ground)
    name = digests.of_bytes(text)
    if DEPENDENCIES in what:
        table = ground.project.gates.dependencies or DependenciesTable()
        found, more = looked_up(ground, lock, table, database, lock_digest=name, now=now)
        results += more
        if ground.licences is not None:
            named = licences.licences_of(lock, ground.licences([pin.name for pin in lock.pins]))
            results += licences.check_licences(named, table, lock_digest=name, now=now)
    code = ground.code()
    tools: dict[str, Scanned] = {}
    if CODE in what:
        rules = ground.project.gates.code or CodeTable()
        tools, more = scanned(ground, rules, tree=code.tree, now=now)
        results += more
        if tree is not None and code.tree != tree:
            why = "the code here is not the code that made this model: check out its commit"
            results.append(codescan.broken("tree", why))
    return Scan(
        id=ids.new(),
        at=now,
        person=person,
        lock=name,
        lock_file=lock_file(ground, text),
        packages=len(lock.pins),
        unread=lock.unread,
        # Only where something was looked up: no finding of a scan of code says nothing about the lock.
        database=database.id if database and DEPENDENCIES in what else "",
        built_at=database.built_at if database and DEPENDENCIES in what else None,
        vulnerabilities=found,
        licences=named,
        tree=code.tree,
        commit=code.commit,
        tools={tool: one.version for tool, one in tools.items()},
        findings=findings_of(tools),
        results=tuple(results),
        verdict=verdict_of(results),
    )


def scan_id(release: str, database: str) -> str:
    """One scan of a release with a database, whoever makes it."""
    return f"{release.removeprefix('sha256:')[:24]}-{database.removeprefix('sha256:')[:24]}"


def verdict_of(results: Sequence[CheckResult]) -> Verdict:
    """The worst of what counts."""
    return worst(tuple(r.verdict for r in results if not r.gate.endswith("-shown")))


def newest_database(ground: Ground) -> AdvisoryDatabase | None:
    return next(iter(ground.store.find(AdvisoryDatabase, ecosystem=ECOSYSTEM, limit=1)), None)


def looked_up(
    ground: Ground,
    lock: Lock,
    table: DependenciesTable,
    database: AdvisoryDatabase | None,
    *,
    lock_digest: str,
    now: datetime,
) -> tuple[tuple[Vulnerability, ...], list[CheckResult]]:
    """Findings and verdicts. A database that is not what was imported is an error, no silence."""
    found: tuple[Vulnerability, ...] = ()
    if database is not None and ground.advisories is not None:
        try:
            found = vulnerabilities.find(lock, ground.advisories.opened(database.id))
        except FalajError as error:
            why = f"{error}: {error.problems[0].fix}"
            broken = CheckResult(
                check="dependencies.database",
                gate=DEPENDENCIES,
                verdict=Verdict.ERROR,
                reason=why,
                details={"database": database.id, "lock": lock_digest},
            )
            return (), [broken]
    return found, vulnerabilities.check_vulnerabilities(
        found, lock, table, database, lock_digest=lock_digest, now=now
    )


def scanned(
    ground: Ground, table: CodeTable, *, tree: str, now: datetime
) -> tuple[dict[str, Scanned], list[CheckResult]]:
    tools: dict[str, Scanned] = {}
    results: list[CheckResult] = []
    for tool in ground.scanners():
        ground.tell(f"code: {tool.name} looks at it")
        files = listed(ground.root, ground.project.pipelines.code, tool.kinds)
        try:
            tools[tool.name] = tool.scan(ground.root, files)
        except FalajError as error:
            first = error.problems[0]
            results.append(codescan.broken(tool.name, f"{first.message}: {first.fix}"))
    if not tools and not results:
        results.append(codescan.broken("scanner", "no scanner of code is here"))
    return tools, results + codescan.check_code(tools, table, tree=tree, now=now)


def findings_of(tools: dict[str, Scanned]) -> tuple[CodeFinding, ...]:
    return tuple(found for name in sorted(tools) for found in tools[name].findings)


def lock_file(ground: Ground, text: bytes) -> str:
    for name in NAMES:
        if (ground.root / name).is_file() and (ground.root / name).read_bytes() == text:
            return name
    return ""
