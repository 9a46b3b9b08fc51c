"""From a contract to the checks that it asks for. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from falaj.base.errors import Place
from falaj.data.odcs import Contract, Distribution, Options, Property, Quality, Table
from falaj.facts.checks import Verdict

__all__ = ["Check", "checks_of", "decided", "holds", "is_strict"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check, ready to be scanned.

    kind: of the list in README.md. columns: that it reads. said: what the kind needs to know.
    operator, limit, unit: what the count of violations is held against.
    """

    id: str
    kind: str
    columns: tuple[str, ...]
    requirement: str
    place: Place
    said: dict[str, Any] = field(default_factory=dict)
    operator: str = "="
    limit: tuple[float, ...] = (0.0,)
    unit: str = "rows"
    severity: str = "error"


def checks_of(contract: Contract, dataset: str) -> tuple[Check, ...]:
    """All checks of one dataset, in the order of the contract."""
    table = contract.table(dataset)
    found: list[Check] = []
    for column in table.properties:
        found += _of_column(column, table)
        found += [_of_quality(rule) for rule in table.quality if rule.column == column.name]
    if table.key:
        first = next(p for p in table.properties if p.key_position is not None)
        found.append(
            Check(
                id=f"{'+'.join(table.key)}.key",
                kind="key",
                columns=table.key,
                requirement=f"({', '.join(table.key)}) is there and once",
                place=first.place,
            )
        )
    found += [
        Check(
            id=f"{'+'.join(reference.columns)}.reference",
            kind="reference",
            columns=reference.columns,
            requirement=f"found in {reference.dataset} ({', '.join(reference.to)})",
            place=reference.place,
            said={"dataset": reference.dataset, "to": reference.to},
        )
        for reference in table.references
    ]
    found += [_of_quality(rule) for rule in table.quality if not rule.column]
    found += [
        Check(
            id=f"{fresh.column}.freshness",
            kind="freshness",
            columns=(fresh.column,),
            requirement=f"newest value at most {fresh.seconds:g} s old",
            place=fresh.place,
            said={"seconds": fresh.seconds},
        )
        for fresh in table.freshness
    ]
    return _named_once(found)


def _named_once(found: list[Check]) -> tuple[Check, ...]:
    """Two checks of one id get numbers, so that results can be told apart."""
    from dataclasses import replace

    seen: dict[str, int] = {}
    named = []
    for check in found:
        seen[check.id] = seen.get(check.id, 0) + 1
        number = seen[check.id]
        named.append(check if number == 1 else replace(check, id=f"{check.id}[{number}]"))
    return tuple(named)


def _of_column(column: Property, table: Table) -> list[Check]:
    def made(kind: str, requirement: str, **said: Any) -> Check:
        return Check(
            id=f"{column.name}.{kind}",
            kind=kind,
            columns=(column.name,),
            requirement=requirement,
            place=column.place,
            said=said,
        )

    options = column.options
    found = [made("present", "the column exists")]
    if column.logical_type:
        told = column.logical_type + (f" ({options.format})" if options.format else "")
        found.append(
            made(
                "type",
                told,
                logical_type=column.logical_type,
                format=options.format,
                timezone=options.timezone,
            )
        )
    if column.required or column.name in table.key:
        found.append(made("required", "not null"))
    found += _of_options(options, made)
    if column.allowed:
        found.append(made("allowed", f"one of {_listed(column.allowed)}", values=column.allowed))
    if column.unique:
        found.append(made("unique", "each value once"))
    return found


def _of_options(options: Options, made: Any) -> list[Check]:
    found = []
    if options.minimum is not None or options.maximum is not None:
        low = (
            ""
            if options.minimum is None
            else f"{'>' if options.exclusive_minimum else '>='} {options.minimum}"
        )
        high = (
            ""
            if options.maximum is None
            else f"{'<' if options.exclusive_maximum else '<='} {options.maximum}"
        )
        found.append(
            made("range", " and ".join(part for part in (low, high) if part), options=options)
        )
    if options.multiple_of is not None:
        found.append(made("multiple", f"multiple of {options.multiple_of}", of=options.multiple_of))
    if options.min_length is not None or options.max_length is not None:
        low_n = 0 if options.min_length is None else options.min_length
        high_n = "any" if options.max_length is None else options.max_length
        found.append(made("length", f"{low_n} to {high_n} characters", options=options))
    if options.pattern:
        found.append(made("pattern", f"matches {options.pattern}", pattern=options.pattern))
    if options.format in {"uuid", "email", "ipv4", "ipv6", "uri", "hostname"}:
        found.append(made("format", f"is a {options.format}", format=options.format))
    if options.min_items is not None or options.max_items is not None or options.unique_items:
        found.append(made("items", "number of items", options=options))
    return found


def _of_quality(rule: Quality) -> Check:
    columns = (rule.column,) if rule.column else rule.properties
    kind, requirement, said = _kind_of(rule)
    return Check(
        id=rule.id,
        kind=kind,
        columns=columns,
        requirement=requirement,
        place=rule.place,
        said=said,
        operator=rule.operator,
        limit=rule.limit,
        unit=rule.unit,
        severity=rule.severity,
    )


def _kind_of(rule: Quality) -> tuple[str, str, dict[str, Any]]:
    match (rule.kind, rule.metric):
        case ("text", _):
            return "text", rule.description or "a person judges", {}
        case ("sql", _):
            return "sql", rule.query, {}
        case ("custom", _) if rule.distribution is not None:
            return "distribution", _shape(rule.distribution), {"distribution": rule.distribution}
        case ("custom", _) if rule.engine == "falaj":
            return "cross-column", rule.implementation, {"expression": rule.implementation}
        case ("custom", _):
            return "foreign", f"by {rule.engine or 'another engine'}", {"engine": rule.engine}
        case (_, "nullValues"):
            return "null limit", "nulls", {}
        case (_, "missingValues"):
            values = rule.missing_values
            return "missing", f"none of {_listed(values)}", {"values": values}
        case (_, "invalidValues") if rule.pattern and not rule.valid_values:
            return "pattern", f"matches {rule.pattern}", {"pattern": rule.pattern}
        case (_, "invalidValues"):
            told = f"one of {_listed(rule.valid_values)}"
            if rule.pattern:
                told += f" that matches {rule.pattern}"
            return "allowed", told, {"values": rule.valid_values, "pattern": rule.pattern}
        case (_, "duplicateValues"):
            return "duplicates", "duplicates", {}
        case _:
            return "row count", "rows", {}


def _shape(said: Distribution) -> str:
    told = [] if said.edges is None else [f"PSI at most {said.psi:g} from the reference"]
    for share, low, high in said.quantiles:
        bounds = (
            f"{'any' if low is None else f'{low:g}'} to {'any' if high is None else f'{high:g}'}"
        )
        told.append(f"quantile {share:g} in {bounds}")
    return ", ".join(told)


def _listed(values: tuple[Any, ...]) -> str:
    shown = ", ".join(map(str, values[:5]))
    return shown if len(values) <= 5 else f"{shown} and {len(values) - 5} more"


def holds(operator: str, value: float, limit: tuple[float, ...]) -> bool:
    """Whether `value` satisfies the operator. Between includes both ends."""
    first, last = limit[0], limit[-1]
    match operator:
        case "=":
            return value == first
        case "!=":
            return value != first
        case ">":
            return value > first
        case ">=":
            return value >= first
        case "<":
            return value < first
        case "<=":
            return value <= first
        case "between":
            return first <= value <= last
        case "not between":
            return not first <= value <= last
        case _:
            raise ValueError(f"operator {operator!r}")


def decided(operator: str, low: float, high: float, limit: tuple[float, ...]) -> Verdict:
    """Whether a value that lies between `low` and `high` satisfies the operator, as far as is known.

    >>> str(decided("<=", 0.1, 0.4, (0.5,))), str(decided("<=", 0.1, 0.6, (0.5,)))
    ('pass', 'inconclusive')
    """
    first, last = limit[0], limit[-1]
    match operator:
        case "=":
            always, ever = low == high == first, low <= first <= high
        case ">" | ">=" | "<" | "<=":
            ends = [holds(operator, end, limit) for end in (low, high)]
            always, ever = all(ends), any(ends)
        case "between":
            always, ever = first <= low and high <= last, low <= last and high >= first
        case "!=" | "not between":
            other = {"!=": "=", "not between": "between"}[operator]
            turned = {Verdict.PASS: Verdict.FAIL, Verdict.FAIL: Verdict.PASS}
            found = decided(other, low, high, limit)
            return turned.get(found, found)
        case _:
            raise ValueError(f"operator {operator!r}")
    if always:
        return Verdict.PASS
    return Verdict.INCONCLUSIVE if ever else Verdict.FAIL


def is_strict(check: Check) -> bool:
    """Whether one row that breaks the check breaks the contract."""
    return check.severity == "error" and check.operator == "=" and check.limit == (0.0,)
