"""Under which licence the pinned packages are, and whether the project may use them. Pure.

An SPDX expression where one is declared (PEP 639), else what classifiers or the old field say. A
classifier such as "BSD License" names a family and no licence: it becomes `BSD-unspecified`, which
the pattern `BSD-*` of a policy covers and the exact `BSD-3-Clause` does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Final

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from falaj.base.locks import Lock
from falaj.evaluation.vulnerabilities import ignored
from falaj.facts.checks import CheckResult, Verdict
from falaj.facts.project import DependenciesTable
from falaj.facts.scans import Declared, Licence

__all__ = ["allowed", "check_licences", "licence_of", "licences_of", "required"]

GATE: Final = "dependencies"
OSI: Final = "License :: OSI Approved :: "
# Trove classifiers -> SPDX, where a classifier says which licence it is.
CLASSIFIERS: Final = {
    "Apache Software License": "Apache-unspecified",
    "BSD License": "BSD-unspecified",
    "BSD 3-Clause": "BSD-3-Clause",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "Eclipse Public License 2.0 (EPL-2.0)": "EPL-2.0",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License (GPL)": "GPL-unspecified",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-unspecified",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "Zero-Clause BSD (0BSD)": "0BSD",
    "zlib/libpng License": "Zlib",
}
SPELLINGS: Final = {
    "apache": "Apache-unspecified",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache license version 2.0": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "bsd": "BSD-unspecified",
    "bsd license": "BSD-unspecified",
    "bsd 3-clause": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "bsd-3": "BSD-3-Clause",
    "gpl": "GPL-unspecified",
    "lgpl": "LGPL-unspecified",
    "mit license": "MIT",
    "the mit license": "MIT",
    "psf": "PSF-2.0",
    "psfl": "PSF-2.0",
    "mpl 2.0": "MPL-2.0",
}
SHORT: Final = 80  # a longer text is the licence itself, and names none


def licences_of(lock: Lock, declared: Mapping[str, Declared]) -> tuple[Licence, ...]:
    """One for each pin; declared: by normalised name, of what is installed here."""
    return tuple(licence_of(pin.name, pin.version, declared.get(pin.name)) for pin in lock.pins)


def licence_of(package: str, version: str, said: Declared | None) -> Licence:
    """The licence of exactly this version, or why it is not known."""
    if said is None:
        return Licence(package=package, version=version, why="it is not installed here")
    if said.version != version:
        why = f"{said.version} is installed here, the lock pins another version"
        return Licence(package=package, version=version, why=why)
    for text in (said.expression, *_short(said.text)):
        expression = _spdx(text)
        if expression:
            return Licence(package=package, version=version, expression=expression)
    named = sorted(
        {CLASSIFIERS.get(c.removeprefix(OSI), "") for c in said.classifiers if c.startswith(OSI)}
        - {""}
    )
    if named:
        # Several classifiers may mean a choice or a sum: all of them have to be allowed.
        return Licence(package=package, version=version, expression=" AND ".join(named))
    family = [SPELLINGS[t.lower()] for t in _short(said.text) if t.lower() in SPELLINGS]
    if family:
        return Licence(package=package, version=version, expression=family[0])
    other = [c.removeprefix("License :: ") for c in said.classifiers if c.startswith("License")]
    shown = ", ".join([*_short(said.text), *other][:2])
    why = f"its metadata says {shown!r}" if shown else "its metadata says nothing"
    return Licence(package=package, version=version, why=why)


def _short(text: str) -> tuple[str, ...]:
    line = " ".join(text.split())
    return (line,) if 0 < len(line) <= SHORT else ()


def _spdx(text: str) -> str:
    """The expression in its one spelling; nothing where it is none."""
    known = SPELLINGS.get(text.strip().lower(), text)
    if known.endswith("-unspecified"):
        return ""
    try:
        return str(canonicalize_license_expression(known)) if known.strip() else ""
    except (InvalidLicenseExpression, RecursionError, SyntaxError):
        return ""


def allowed(expression: str, permit: Sequence[str], deny: Sequence[str]) -> bool:
    """Whether an expression can be kept: of OR one side suffices, of AND both are needed.

    permit, deny: patterns such as `MIT`, `BSD-*`; an empty `permit` permits all that is not denied.
    """
    words = re.findall(r"\(|\)|[^\s()]+", expression)
    at = 0

    def either() -> bool:
        nonlocal at
        found = both()
        while at < len(words) and words[at] == "OR":
            at += 1
            found = both() or found
        return found

    def both() -> bool:
        nonlocal at
        found = one()
        while at < len(words) and words[at] == "AND":
            at += 1
            found = one() and found
        return found

    def one() -> bool:
        nonlocal at
        if at < len(words) and words[at] == "(":
            at += 1
            found = either()
            at += 1
            return found
        name = words[at] if at < len(words) else ""
        at += 1
        whole = name
        if at + 1 < len(words) and words[at] == "WITH":
            whole = f"{name} WITH {words[at + 1]}"
            at += 2
        if _any(name, deny) and (whole == name or not _any(whole, permit)):
            return False
        return not permit or _any(name, permit) or _any(whole, permit)

    return either()


def required(table: DependenciesTable) -> str:
    """The rule in words; nothing where there is none."""
    permit, deny = table.licences_allowed, table.licences_denied
    if not permit and not deny:
        return ""
    without = f", without {', '.join(deny)}" if deny else ""
    return f"licences: {', '.join(permit) or 'all'}{without}"


def _any(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


def check_licences(
    found: Sequence[Licence], table: DependenciesTable, *, lock_digest: str, now: datetime
) -> list[CheckResult]:
    """Nothing where the project has no rule. A licence that is not known is inconclusive."""
    permit, deny = table.licences_allowed, table.licences_denied
    if not permit and not deny:
        return []
    requirement = required(table)
    results = []
    for one in found:
        what = f"{one.package} {one.version}"
        if not one.expression:
            verdict, why = Verdict.INCONCLUSIVE, f"the licence of {what} is not known: {one.why}"
        elif not allowed(one.expression, permit, deny):
            verdict, why = Verdict.FAIL, f"{what} is under {one.expression}"
        else:
            continue
        lasting = ignored((one.package, f"{one.package}=={one.version}"), table.ignore, now)
        if lasting is not None:
            verdict = Verdict.INCONCLUSIVE
            why += f". Ignored until {lasting.until}: {lasting.reason}"
        results.append(_result(one.package, verdict, why, requirement, lock_digest))
    if not results and found:
        why = f"{len(found)} packages are under licences that are allowed"
        results.append(_result("", Verdict.PASS, why, requirement, lock_digest))
    return results


def _result(
    package: str, verdict: Verdict, reason: str, requirement: str, lock_digest: str
) -> CheckResult:
    return CheckResult(
        check=f"dependencies.licence.{package}" if package else "dependencies.licences",
        gate=GATE,
        verdict=verdict,
        reason=reason,
        requirement=requirement,
        details={"lock": lock_digest, **({"package": package} if package else {})},
    )
