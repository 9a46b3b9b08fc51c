"""Reads data contracts: Open Data Contract Standard v3.1 (3.0 and 3.2 too), each mistake placed.

https://bitol-io.github.io/open-data-contract-standard/v3.1.0/
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from falaj.base import digests
from falaj.base.errors import FalajError, Place, Problem
from falaj.facts.data import Classification

if TYPE_CHECKING:
    from falaj.stats.summaries import Edges

__all__ = [
    "Contract",
    "Distribution",
    "Options",
    "Property",
    "Quality",
    "Reference",
    "Table",
    "parse_contract",
    "read_contract",
]

MAX_BYTES: Final = 1024 * 1024
VERSIONS: Final = ("v3.0.", "v3.1.", "v3.2.")
TYPES: Final = (
    *("string", "date", "timestamp", "time", "number", "integer", "object", "array", "boolean"),
)
OPERATORS: Final = {
    "mustBe": "=",
    "mustNotBe": "!=",
    "mustBeGreaterThan": ">",
    "mustBeGreaterOrEqualTo": ">=",
    "mustBeLessThan": "<",
    "mustBeLessOrEqualTo": "<=",
    "mustBeBetween": "between",
    "mustNotBeBetween": "not between",
}
CLASSES: Final = {
    "public": Classification.PUBLIC,
    "internal": Classification.INTERNAL,
    "confidential": Classification.CONFIDENTIAL,
    "restricted": Classification.CONFIDENTIAL,
    "personal": Classification.PERSONAL,
    "pii": Classification.PERSONAL,
    "sensitive": Classification.SENSITIVE,
    "special": Classification.SENSITIVE,
}
METRICS: Final = ("nullValues", "missingValues", "invalidValues", "duplicateValues", "rowCount")
COMMON: Final = "id tags customProperties authoritativeDefinitions description"
KEYS: Final = {
    "contract": f"{COMMON} apiVersion kind name version status tenant domain dataProduct schema "
    "servers team roles slaProperties slaDefaultElement price support contractCreatedTs",
    "schema": f"{COMMON} name physicalName physicalType logicalType businessName "
    "dataGranularityDescription properties relationships quality",
    "property": f"{COMMON} name primaryKey primaryKeyPosition logicalType logicalTypeOptions "
    "physicalType physicalName required unique partitioned partitionKeyPosition classification "
    "encryptedName transformSourceObjects transformLogic transformDescription examples "
    "criticalDataElement relationships quality businessName items properties enum map vector",
    "logicalTypeOptions": "format minimum maximum exclusiveMinimum exclusiveMaximum multipleOf "
    "minLength maxLength pattern minItems maxItems uniqueItems minProperties maxProperties "
    "required timezone defaultTimezone",
    "quality": f"{COMMON} type name dimension metric rule arguments unit severity businessImpact "
    f"method schedule scheduler query engine implementation validValues {' '.join(OPERATORS)}",
    "relationship": f"{COMMON} type from to",
    "arguments": "validValues pattern missingValues properties",
    "distribution": "metric reference psi quantiles",
    "sla": f"{COMMON} property value valueExt unit element driver scheduler schedule",
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """logicalTypeOptions, as far as they are checked."""

    format: str = ""
    timezone: bool | None = None
    minimum: Any = None
    maximum: Any = None
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False
    multiple_of: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str = ""
    min_items: int | None = None
    max_items: int | None = None
    unique_items: bool = False


@dataclass(frozen=True, kw_only=True)
class Quality:
    """One quality rule. column: empty for rules of the table. limit: one number, or two."""

    id: str
    kind: str
    column: str
    place: Place
    metric: str = ""
    operator: str = "="
    limit: tuple[float, ...] = (0.0,)
    unit: str = "rows"
    severity: str = "error"
    valid_values: tuple[Any, ...] = ()
    missing_values: tuple[Any, ...] = ()
    pattern: str = ""
    properties: tuple[str, ...] = ()
    engine: str = ""
    implementation: str = ""
    query: str = ""
    description: str = ""
    distribution: Distribution | None = None


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """What a column's distribution is held against: frozen edges with counts, or quantiles.

    psi: largest population stability index against `edges`.
    quantiles: share of rows -> the bounds of its quantile; None: no bound.
    """

    edges: Edges | None = None
    psi: float = 0.2
    quantiles: tuple[tuple[float, float | None, float | None], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Columns that must be found in another dataset's columns."""

    columns: tuple[str, ...]
    dataset: str
    to: tuple[str, ...]
    place: Place


@dataclass(frozen=True, kw_only=True)
class Property:
    name: str
    place: Place
    logical_type: str = ""
    options: Options = field(default_factory=Options)
    required: bool = False
    unique: bool = False
    key_position: int | None = None
    classification: Classification | None = None
    allowed: tuple[Any, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Table:
    """One schema object: what one dataset promises."""

    name: str
    place: Place
    properties: tuple[Property, ...] = ()
    quality: tuple[Quality, ...] = ()
    references: tuple[Reference, ...] = ()
    null_values: tuple[str, ...] = ()
    freshness: tuple[Freshness, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """Columns of the primary key, by position."""
        keyed = [p for p in self.properties if p.key_position is not None]
        return tuple(p.name for p in sorted(keyed, key=lambda p: p.key_position or 0))


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """The newest value of a column may be this old."""

    column: str
    seconds: float
    place: Place


@dataclass(frozen=True, kw_only=True)
class Contract:
    """digest: of the file, and of the reference files that it names.

    notes: fields that were read but are not evaluated.
    """

    id: str
    name: str
    version: str
    api_version: str
    file: str
    digest: str
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()

    def table(self, dataset: str) -> Table:
        """The schema object of a dataset: of its name, or the only one. Raises FalajError."""
        for table in self.tables:
            if table.name == dataset:
                return table
        if len(self.tables) == 1:
            return self.tables[0]
        raise FalajError(
            "data.contract-no-table",
            f"contract {self.id} has no schema object named {dataset!r}",
            place=Place(file=self.file, line=1),
            why=f"it has: {', '.join(table.name for table in self.tables)}",
            fix="name the dataset like one of them",
        )


def read_contract(path: Path, *, root: Path | None = None) -> Contract:
    """Read a contract file. Raises FalajError with every mistake in it, each with its line."""
    name = str(path)
    if root is not None and path.is_relative_to(root):
        name = path.relative_to(root).as_posix()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FalajError(
            "data.contract-unreadable",
            f"contract {name}: {error.strerror}",
            fix="mend `contract` of the dataset in falaj.toml",
        ) from None
    return parse_contract(data, file=name, folder=path.parent)


def parse_contract(data: bytes, *, file: str, folder: Path | None = None) -> Contract:
    """Read a contract from bytes; `file` is what places name, reference files lie in `folder`."""
    reader = _Reader(file, data, folder)
    found = reader.contract()
    if reader.problems:
        raise FalajError.of(tuple(reader.problems))
    return found


class _Reader:
    """Walks the YAML nodes, so that every value knows its line; collects all problems."""

    def __init__(self, file: str, data: bytes, folder: Path | None) -> None:
        self.file = file
        self.data = data
        self.folder = folder
        self.read: dict[str, str] = {}  # reference file -> digest
        self.lines = data.decode(errors="replace").splitlines()
        self.problems: list[Problem] = []
        self.notes: list[str] = []

    # -- yaml ------------------------------------------------------------------------------------

    def _place(self, mark: Any) -> Place:
        line = mark.line + 1
        text = self.lines[mark.line].strip() if mark.line < len(self.lines) else ""
        return Place(file=self.file, line=line, column=mark.column + 1, excerpt=((line, text),))

    def problem(self, code: str, message: str, mark: Any, why: str = "", fix: str = "") -> None:
        place = self._place(mark)
        self.problems.append(
            Problem(code=f"data.{code}", message=message, place=place, why=why, fix=fix)
        )

    def root(self) -> yaml.Node:
        start = Place(file=self.file, line=1)
        if len(self.data) > MAX_BYTES:
            raise FalajError(
                "data.contract-too-large",
                f"{self.file}: {len(self.data)} bytes, at most {MAX_BYTES}",
                place=start,
                fix="split the contract",
            )
        try:
            for event in yaml.parse(self.data, Loader=yaml.SafeLoader):
                if isinstance(event, yaml.AliasEvent):
                    raise FalajError(
                        "data.contract-alias",
                        "YAML aliases are refused in contracts",
                        place=self._place(event.start_mark),
                        why="a few of them can unfold to more than the memory holds",
                        fix="write the value out",
                    )
            node = yaml.compose(self.data, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise FalajError(
                "data.contract-yaml",
                f"not YAML: {error.problem}",
                place=self._place(mark) if mark else start,
                fix="mend the line",
            ) from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise FalajError(
                "data.contract-yaml", f"not YAML: {error}", place=start, fix="write UTF-8 text"
            ) from None
        if not isinstance(node, yaml.MappingNode):
            raise FalajError(
                "data.contract-yaml",
                "got no mapping, expected a data contract",
                place=start,
                fix="begin with `apiVersion: v3.1.0` and `kind: DataContract`",
            )
        return node

    def mapping(self, node: yaml.Node, kind: str) -> dict[str, yaml.Node]:
        """Keys and nodes of a mapping; unknown and doubled keys are problems."""
        if not isinstance(node, yaml.MappingNode):
            self.problem("contract-value", f"{kind}: expected a mapping", node.start_mark)
            return {}
        known = KEYS[kind].split()
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value)
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                self.problem(
                    "contract-unknown-key",
                    f"{kind}: unknown key {name!r}",
                    key.start_mark,
                    fix=f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}",
                )
            elif name in found:
                self.problem("contract-value", f"{kind}: {name} stands twice", key.start_mark)
            found[name] = value
        return found

    def items(self, node: yaml.Node | None, kind: str) -> Iterator[yaml.Node]:
        if node is None:
            return
        if not isinstance(node, yaml.SequenceNode):
            self.problem("contract-value", f"{kind}: expected a list", node.start_mark)
            return
        yield from node.value

    def value(self, node: yaml.Node) -> Any:
        """A plain value. YAML's dates stay dates."""
        try:
            return yaml.SafeLoader("").construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError) as error:
            self.problem("contract-value", f"bad value: {error}", node.start_mark)
            return None

    def typed(
        self, found: dict[str, yaml.Node], key: str, kind: type | tuple[type, ...], default: Any
    ) -> Any:
        if key not in found:
            return default
        value = self.value(found[key])
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wrong_bool = isinstance(value, bool) and bool not in kinds
        if wrong_bool or not isinstance(value, kinds):
            words = " or ".join(_WORDS.get(one, one.__name__) for one in kinds)
            self.problem(
                "contract-value",
                f"{key}: got {value!r}, expected {words}",
                found[key].start_mark,
                fix=f"write {words}",
            )
            return default
        return value

    def one_of(
        self, found: dict[str, yaml.Node], key: str, allowed: Collection[str], default: str
    ) -> str:
        value: str = self.typed(found, key, str, default)
        if key in found and value != default and value not in allowed:
            near = difflib.get_close_matches(value, list(allowed), 1)
            self.problem(
                "contract-value",
                f"{key}: got {value!r}, expected one of {', '.join(allowed)}",
                found[key].start_mark,
                fix=f"did you mean {near[0]!r}?" if near else "write one of them",
            )
            return default
        return value

    # -- the contract ----------------------------------------------------------------------------

    def contract(self) -> Contract:
        node = self.root()
        found = self.mapping(node, "contract")
        version = self.typed(found, "apiVersion", str, "")
        if not version.startswith(VERSIONS):
            self.problem(
                "contract-version",
                f"apiVersion: got {version!r}, expected v3.0.x, v3.1.x or v3.2.x",
                found.get("apiVersion", node).start_mark,
                fix="write `apiVersion: v3.1.0`",
            )
        if self.typed(found, "kind", str, "") != "DataContract":
            self.problem(
                "contract-value",
                "kind: expected DataContract",
                found.get("kind", node).start_mark,
                fix="write `kind: DataContract`",
            )
        fresh = list(self.freshness(found))
        tables = tuple(
            self.table(item, fresh) for item in self.items(found.get("schema"), "schema")
        )
        if not tables:
            self.problem("contract-value", "schema: expected at least one object", node.start_mark)
        name = str(self.typed(found, "name", str, ""))
        return Contract(
            id=str(self.typed(found, "id", str, name)),
            name=name,
            version=str(self.typed(found, "version", str, "")),
            api_version=version,
            file=self.file,
            digest=digests.of_tree({"contract": digests.of_bytes(self.data), **self.read})
            if self.read
            else digests.of_bytes(self.data),
            tables=tables,
            notes=tuple(self.notes),
        )

    def freshness(self, found: dict[str, yaml.Node]) -> Iterator[tuple[str, Freshness]]:
        for item in self.items(found.get("slaProperties"), "slaProperties"):
            said = self.mapping(item, "sla")
            name = self.typed(said, "property", str, "")
            if name not in {"latency", "freshness"}:
                self.notes.append(f"slaProperties {name} is not evaluated")
                continue
            amount = self.typed(said, "value", (int, float), 0)
            unit = self.one_of(said, "unit", tuple(SECONDS), "d")
            element = self.typed(said, "element", str, "")
            table, _, column = element.rpartition(".")
            place = self._place(item.start_mark)
            yield (
                table,
                Freshness(column=column, seconds=float(amount) * SECONDS[unit], place=place),
            )

    def table(self, node: yaml.Node, fresh: list[tuple[str, Freshness]]) -> Table:
        found = self.mapping(node, "schema")
        name = str(self.typed(found, "name", str, ""))
        if not name:
            self.problem("contract-value", "schema: an object has no name", node.start_mark)
        properties: list[Property] = []
        quality: list[Quality] = []
        references: list[Reference] = []
        for item in self.items(found.get("properties"), "properties"):
            made, rules, points = self.column(item)
            if made.name in {other.name for other in properties}:
                self.problem(
                    "contract-value", f"property {made.name!r} stands twice", item.start_mark
                )
            properties.append(made)
            quality += rules
            references += points
        quality += [self.rule(item, "") for item in self.items(found.get("quality"), "quality")]
        for item in self.items(found.get("relationships"), "relationships"):
            references += self.relationship(item, "")
        return Table(
            name=name,
            place=self._place(node.start_mark),
            properties=tuple(properties),
            quality=tuple(quality),
            references=tuple(references),
            null_values=self.null_values(found),
            freshness=tuple(one for table, one in fresh if table in {"", name}),
        )

    def null_values(self, found: dict[str, yaml.Node]) -> tuple[str, ...]:
        """Texts that stand for null in CSV files: the custom property `nullValues`."""
        if "customProperties" not in found:
            return ()
        listed = self.value(found["customProperties"])
        for said in listed if isinstance(listed, list) else ():
            if isinstance(said, dict) and said.get("property") == "nullValues":
                value = said.get("value")
                return tuple(str(item) for item in (value if isinstance(value, list) else [value]))
        return ()

    def column(self, node: yaml.Node) -> tuple[Property, list[Quality], list[Reference]]:
        found = self.mapping(node, "property")
        name = str(self.typed(found, "name", str, ""))
        if not name:
            self.problem("contract-value", "a property has no name", node.start_mark)
        kind = self.one_of(found, "logicalType", TYPES, "")
        for key in ("map", "vector"):
            if key in found:
                self.notes.append(f"{name}: {key} is not evaluated")
        key_position = None
        if self.typed(found, "primaryKey", bool, default=False):
            key_position = int(self.typed(found, "primaryKeyPosition", int, 1))
        made = Property(
            name=name,
            place=self._place(node.start_mark),
            logical_type=kind,
            options=self.options(found.get("logicalTypeOptions"), kind),
            required=self.typed(found, "required", bool, default=False),
            unique=self.typed(found, "unique", bool, default=False),
            key_position=key_position,
            classification=self.classification(found),
            allowed=self.listed(found, "enum"),
        )
        quality = [self.rule(item, name) for item in self.items(found.get("quality"), "quality")]
        references: list[Reference] = []
        for item in self.items(found.get("relationships"), "relationships"):
            references += self.relationship(item, name)
        return made, quality, references

    def classification(self, found: dict[str, yaml.Node]) -> Classification | None:
        if "classification" not in found:
            return None
        word = str(self.value(found["classification"])).lower()
        if word not in CLASSES:
            self.problem(
                "contract-value",
                f"classification: got {word!r}, expected one of {', '.join(CLASSES)}",
                found["classification"].start_mark,
                fix="an unknown class could not be masked; write one of these",
            )
        return CLASSES.get(word)

    def listed(self, found: dict[str, yaml.Node], key: str) -> tuple[Any, ...]:
        if key not in found:
            return ()
        value = self.value(found[key])
        if not isinstance(value, list):
            self.problem(
                "contract-value", f"{key}: expected a list", found[key].start_mark, fix="write [..]"
            )
            return ()
        return tuple(value)

    def options(self, node: yaml.Node | None, kind: str) -> Options:
        if node is None:
            return Options()
        found = self.mapping(node, "logicalTypeOptions")
        bound = (int, float, str, date, datetime)
        low, high = (
            self.typed(found, "minimum", bound, None),
            self.typed(found, "maximum", bound, None),
        )
        low, below = self.exclusive(found, "exclusiveMinimum", low)
        high, above = self.exclusive(found, "exclusiveMaximum", high)
        text = self.typed(found, "format", str, "")
        # The 3.1 schema gives `number` the default format i32: a contract cannot mean that.
        if kind == "number" and text == "i32":
            text = ""
        pattern = str(self.typed(found, "pattern", str, ""))
        if pattern:
            self.check_pattern(pattern, found["pattern"])
        for key in ("minProperties", "maxProperties", "required"):
            if key in found:
                self.notes.append(f"logicalTypeOptions {key} is not evaluated")
        multiple = self.typed(found, "multipleOf", (int, float), None)
        if multiple is not None and not (math.isfinite(multiple) and multiple > 0):
            self.problem(
                "contract-value",
                "multipleOf: expected a number above 0",
                found["multipleOf"].start_mark,
            )
            multiple = None
        return Options(
            format=text,
            timezone=self.typed(found, "timezone", bool, None),
            minimum=low,
            maximum=high,
            exclusive_minimum=below,
            exclusive_maximum=above,
            multiple_of=multiple,
            min_length=self.typed(found, "minLength", int, None),
            max_length=self.typed(found, "maxLength", int, None),
            pattern=pattern,
            min_items=self.typed(found, "minItems", int, None),
            max_items=self.typed(found, "maxItems", int, None),
            unique_items=self.typed(found, "uniqueItems", bool, default=False),
        )

    def exclusive(self, found: dict[str, yaml.Node], key: str, bound: Any) -> tuple[Any, bool]:
        """A flag in 3.0, a bound of its own later."""
        if key not in found:
            return bound, False
        value = self.value(found[key])
        return (bound, value) if isinstance(value, bool) else (value, True)

    def check_pattern(self, pattern: str, node: yaml.Node) -> None:
        """Polars' regular expressions have no look-around and no back-references."""
        import polars as pl

        try:
            pl.Series([""]).str.contains(pattern)
        except pl.exceptions.PolarsError as error:
            self.problem(
                "contract-pattern",
                f"pattern {pattern!r} cannot be used",
                node.start_mark,
                why=str(error).strip().splitlines()[0],
                fix="write it without look-around and back-references",
            )

    def rule(self, node: yaml.Node, column: str) -> Quality:
        found = self.mapping(node, "quality")
        kind = self.one_of(found, "type", ("library", "text", "sql", "custom"), "library")
        metric = self.typed(found, "metric", str, "") or self.typed(found, "rule", str, "")
        if "rule" in found:
            self.notes.append(f"quality rule of {column or 'the table'}: `rule` is now `metric`")
        if kind == "library" and metric not in METRICS:
            near = difflib.get_close_matches(metric, METRICS, 1)
            self.problem(
                "contract-value",
                f"metric: got {metric!r}, expected one of {', '.join(METRICS)}",
                found.get("metric", found.get("rule", node)).start_mark,
                fix=f"did you mean {near[0]!r}?" if near else "write one of them",
            )
        operator, limit = self.operator(found, node)
        arguments = self.mapping(found["arguments"], "arguments") if "arguments" in found else {}
        pattern = str(self.typed(arguments, "pattern", str, ""))
        if pattern:
            self.check_pattern(pattern, arguments["pattern"])
        implementation = self.implementation(found, kind)
        distribution = self._distribution(found, kind, column)
        if (
            kind == "library"
            and not column
            and metric.endswith(("nullValues", "missingValues", "invalidValues"))
        ):
            self.problem(
                "contract-value",
                f"metric {metric} is about one column, but stands at the table",
                node.start_mark,
                fix="move it below the property",
            )
        if distribution is not None:
            metric = "distribution"
        said = metric or self.typed(found, "engine", str, "") or kind
        own = self.typed(found, "id", str, "")
        return Quality(
            id=own or f"{column or 'table'}.{said}",
            kind=kind,
            column=column,
            place=self._place(node.start_mark),
            metric=metric,
            operator=operator,
            limit=limit,
            unit=self.one_of(found, "unit", ("rows", "percent"), "rows"),
            severity=self.one_of(found, "severity", ("error", "warning", "info"), "error"),
            valid_values=self.listed(arguments, "validValues") or self.listed(found, "validValues"),
            missing_values=self.listed(arguments, "missingValues"),
            pattern=pattern,
            properties=tuple(str(item) for item in self.listed(arguments, "properties")),
            engine=str(self.typed(found, "engine", str, "")),
            implementation=implementation,
            query=str(self.typed(found, "query", str, "")),
            description=str(self.typed(found, "description", str, "")),
            distribution=distribution,
        )

    def _distribution(
        self, found: dict[str, yaml.Node], kind: str, column: str
    ) -> Distribution | None:
        """Of `implementation: {metric: distribution, ..}` with the engine falaj."""
        node = found.get("implementation")
        ours = kind == "custom" and self.typed(found, "engine", str, "") == "falaj"
        if not ours or not isinstance(node, yaml.MappingNode):
            return None
        said = self.mapping(node, "distribution")
        self.one_of(said, "metric", ("distribution",), "")
        quantiles = self._quantiles(said.get("quantiles"))
        edges = self._edges(said["reference"], column) if "reference" in said else None
        if not column or (not quantiles and "reference" not in said):
            self.problem(
                "contract-value",
                "distribution: expected a reference file or quantiles, at a property",
                node.start_mark,
                fix="write `{metric: distribution, quantiles: {0.5: [10, 20]}}` below a property",
            )
        limit = self.typed(said, "psi", (int, float), 0.2)
        return Distribution(edges=edges, psi=float(limit), quantiles=quantiles)

    def _quantiles(
        self, node: yaml.Node | None
    ) -> tuple[tuple[float, float | None, float | None], ...]:
        if node is None:
            return ()
        value = self.value(node)
        good: list[tuple[float, float | None, float | None]] = []
        pairs: dict[Any, Any] = value if isinstance(value, dict) else {"": None}
        for share, bounds in pairs.items():
            try:
                at = float(share)
                low, high = (None if one is None else float(one) for one in bounds)
                if not 0 <= at <= 1:
                    raise ValueError
            except (TypeError, ValueError):
                self.problem(
                    "contract-value",
                    f"quantiles: got {share!r}, expected a share and two bounds",
                    node.start_mark,
                    fix="write `{0.5: [10, 20], 0.99: [null, 400]}`",
                )
                continue
            good.append((at, low, high))
        return tuple(good)

    def _edges(self, node: yaml.Node, column: str) -> Edges | None:
        """Frozen edges of a file beside the contract."""
        from falaj.stats.summaries import (  # numpy: only when it is asked for
            BadSummary,
            Edges,
            decode,
        )

        name = str(self.value(node))
        why = "a reference lies in the contract's folder or below"
        path = Path(name)
        if self.folder is not None and not path.is_absolute() and ".." not in path.parts:
            try:
                data = (self.folder / path).read_bytes()
                found = decode(data)
            except (OSError, BadSummary) as error:
                why = str(error.strerror if isinstance(error, OSError) else error)
            else:
                self.read[name] = digests.of_bytes(data)
                if isinstance(found, Edges) and found.column == column:
                    return found
                why = f"it holds no edges of column {column!r}"
        self.problem(
            "contract-reference",
            f"reference {name!r} cannot be used",
            node.start_mark,
            why=why,
            fix="make it: `falaj data profile DATASET --edges FOLDER`",
        )
        return None

    def implementation(self, found: dict[str, yaml.Node], kind: str) -> str:
        if kind != "custom" or "implementation" not in found:
            return ""
        value = self.value(found["implementation"])
        if not isinstance(value, str) or self.value(found.get("engine", found["type"])) != "falaj":
            return ""
        import polars as pl

        try:
            _refuse_queries(value)
            pl.sql_expr(value)
        except (pl.exceptions.PolarsError, ValueError) as error:
            self.problem(
                "contract-expression",
                f"implementation: {value!r} is no condition on columns",
                found["implementation"].start_mark,
                why=str(error).strip().splitlines()[0],
                fix="write one SQL condition, such as `hour * 100 + minute = sched_dep_time`",
            )
        return value

    def operator(
        self, found: dict[str, yaml.Node], node: yaml.Node
    ) -> tuple[str, tuple[float, ...]]:
        said = [key for key in OPERATORS if key in found]
        if len(said) > 1:
            self.problem(
                "contract-value", f"got {said[0]} and {said[1]}, expected one", node.start_mark
            )
        if not said:
            return "=", (0.0,)
        key = said[0]
        value = self.value(found[key])
        values = value if isinstance(value, list) else [value]
        wanted = 2 if "Between" in key else 1
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(values) != wanted or len(numbers) != wanted:
            words = "two numbers" if wanted == 2 else "a number"
            self.problem(
                "contract-value",
                f"{key}: got {value!r}, expected {words}",
                found[key].start_mark,
                fix=f"write {words}",
            )
            return "=", (0.0,)
        return OPERATORS[key], tuple(float(v) for v in numbers)

    def relationship(self, node: yaml.Node, column: str) -> list[Reference]:
        found = self.mapping(node, "relationship")
        kind = self.typed(found, "type", str, "foreignKey")
        if kind != "foreignKey":
            self.notes.append(f"relationship {kind} is not evaluated")
            return []
        ends = {key: self.names(found, key) for key in ("from", "to")}
        start = [name.rpartition(".")[2] for name in ends["from"]] or [column]
        to = [name.rpartition(".") for name in ends["to"]]
        tables = {table for table, _, _ in to}
        if not to or len(to) != len(start) or len(tables) != 1 or "" in tables:
            self.problem(
                "contract-value",
                "relationship: expected `to: dataset.column` for each column",
                node.start_mark,
                fix="write `to: airports.faa`",
            )
            return []
        return [
            Reference(
                columns=tuple(start),
                dataset=tables.pop().rpartition("/")[2],
                to=tuple(name for _, _, name in to),
                place=self._place(node.start_mark),
            )
        ]

    def names(self, found: dict[str, yaml.Node], key: str) -> list[str]:
        value = self.value(found[key]) if key in found else []
        return [str(item) for item in (value if isinstance(value, list) else [value])]


def _refuse_queries(expression: str) -> None:
    """Refuse what could read something else. Polars parses sub-selects, also those of files."""
    bare = re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"", "", expression)
    found = re.search(r"\b(select|read_\w+|scan_\w+|union|with|table)\b", bare, re.IGNORECASE)
    if found:
        raise ValueError(f"{found.group(0)} is not allowed in a condition")


_WORDS: Final = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}
SECONDS: Final = {
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "minutes": 60.0,
    "h": 3600.0,
    "hours": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
    "days": 86400.0,
    "w": 604800.0,
    "y": 31557600.0,
}
