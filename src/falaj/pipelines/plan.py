"""Run the pipeline function once and learn its steps; refuse what cannot work, all at once."""

from __future__ import annotations

import difflib
import enum
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from falaj.base.errors import FalajError, Place, Problem
from falaj.pipelines.codecs import is_plain
from falaj.pipelines.declare import PLANNING, Absent, Node, Pipeline, Step, fields_of, place_at
from falaj.ports.datasets import Dataset

__all__ = [
    "Bound",
    "Call",
    "Given",
    "Plan",
    "Ref",
    "Refs",
    "canonical_value",
    "make_plan",
    "narrowed",
    "outputs_of",
]

RESULT: Final = "result"
FRAMES: Final = {
    "polars": ("DataFrame", "LazyFrame"),
    "pandas": ("DataFrame",),
    "pyarrow": ("Table",),
}


@dataclass(frozen=True)
class Ref:
    """The answer of another call. part: one field of a NamedTuple. kind: how it is read.

    absent: what stands for the answer of a call that was skipped by its condition.
    """

    call: str
    part: str | None
    kind: Any
    absent: Any = None


@dataclass(frozen=True)
class Refs:
    """A list of answers. wrap: list or tuple."""

    items: tuple[Ref, ...]
    wrap: type


@dataclass(frozen=True)
class Given:
    """A parameter's value, checked against its annotation."""

    value: Any


@dataclass(frozen=True)
class Bound:
    """A dataset, bound by the parameter's name."""

    dataset: str


Argument: TypeAlias = Ref | Refs | Given | Bound


@dataclass(frozen=True)
class Call:
    """One call of one step. id: the step's name, `name[2]` for its second call.

    each: the parameter that takes the elements, one step run for each. when: its condition.
    """

    id: str
    step: Step[..., Any]
    arguments: dict[str, Argument]
    returns: Any
    place: Place
    each: str = ""
    when: Ref | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        found: list[str] = [] if self.when is None else [self.when.call]
        for argument in self.arguments.values():
            refs = argument.items if isinstance(argument, Refs) else (argument,)
            found += [ref.call for ref in refs if isinstance(ref, Ref)]
        return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Plan:
    """Calls in the order they were made, which is an order that can be run."""

    pipeline: str
    calls: tuple[Call, ...]
    parameters: dict[str, Any]
    result: Ref | None
    datasets: tuple[str, ...]


@dataclass(frozen=True)
class _Element:
    """An argument that is one element of what `items` will be."""

    items: Node


def outputs_of(kind: Any) -> dict[str, Any]:
    """Artifacts of an annotation: one, or one a field of a NamedTuple or fixed tuple."""
    return fields_of(kind) or {RESULT: kind}


def make_plan(
    made: Pipeline[..., Any],
    parameters: Mapping[str, Any],
    *,
    root: Path,
    datasets: Collection[str],
    storable: Callable[[Any], bool],
) -> Plan:
    """Plan one run. Raises FalajError with all findings, each with its line."""
    recorder = _Recorder(root=root, datasets=datasets, storable=storable)
    values = recorder.parameters(made, parameters)
    if recorder.findings:
        raise FalajError.of(tuple(recorder.findings))
    token = PLANNING.set(recorder)
    try:
        answer = made.function(**values)
    except FalajError as error:
        raise FalajError.of((*recorder.findings, *error.problems)) from None
    except RecursionError:
        place = _home(made.function, root)
        raise FalajError(
            "pipelines.recursion",
            f"pipeline {made.name} calls itself",
            place=place,
            fix="write the repetition as a loop over a parameter",
        ) from None
    except Exception as error:
        raise _raised(made, error, root) from None
    finally:
        PLANNING.reset(token)
    result = recorder.result(answer, made)
    if recorder.findings:
        raise FalajError.of(tuple(recorder.findings))
    bound = [
        a.dataset for c in recorder.calls for a in c.arguments.values() if isinstance(a, Bound)
    ]
    return Plan(
        pipeline=made.name,
        calls=tuple(recorder.calls),
        parameters=values,
        result=result,
        datasets=tuple(dict.fromkeys(bound)),
    )


def narrowed(plan: Plan, only: str) -> Plan:
    """The plan up to one step: its calls and all that they need. Raises FalajError."""
    wanted = {call.id for call in plan.calls if only in (call.id, call.step.name)}
    if not wanted:
        known = [call.id for call in plan.calls]
        near = difflib.get_close_matches(only, known, 1)
        raise FalajError(
            "pipelines.no-such-step",
            f"pipeline {plan.pipeline} has no step {only!r}",
            why=f"its steps are: {', '.join(known)}",
            fix=f"did you mean {near[0]!r}?" if near else "name one of them",
        )
    for call in reversed(plan.calls):
        if call.id in wanted:
            wanted |= set(call.needs)
    kept = tuple(call for call in plan.calls if call.id in wanted)
    bound = [a.dataset for c in kept for a in c.arguments.values() if isinstance(a, Bound)]
    whole = plan.result is not None and plan.result.call in wanted
    return replace(
        plan,
        calls=kept,
        result=plan.result if whole else None,
        datasets=tuple(dict.fromkeys(bound)),
    )


def _raised(made: Pipeline[..., Any], error: Exception, root: Path) -> FalajError:
    from falaj.pipelines.loading import user_places

    places = user_places(error, root)
    return FalajError(
        "pipelines.plan-failed",
        f"{made.name}: {type(error).__name__}: {error}",
        place=places[-1] if places else _home(made.function, root),
        why="the pipeline function raised while its steps were planned",
        fix="mend the line; nothing was run",
    )


@dataclass
class _Recorder:
    """Collects calls and findings while the pipeline function runs."""

    root: Path
    datasets: Collection[str]
    storable: Callable[[Any], bool]
    calls: list[Call] = field(default_factory=list)
    by_id: dict[str, Call] = field(default_factory=dict)
    findings: list[Problem] = field(default_factory=list)
    steps: dict[str, Step[..., Any]] = field(default_factory=dict)
    hinted: dict[int, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def find(
        self, code: str, message: str, place: Place | None, why: str = "", fix: str = ""
    ) -> None:
        finding = Problem(code=f"pipelines.{code}", message=message, place=place, why=why, fix=fix)
        if finding not in self.findings:
            self.findings.append(finding)

    def inside(self, made: Pipeline[..., Any], place: Place) -> None:
        """A pipeline used inside another one is part of it."""

    def refuse(self, code: str, message: str, place: Place, fix: str) -> None:
        """A finding of another module, with its whole code."""
        self.findings.append(Problem(code=code, message=message, place=place, fix=fix))

    def call(
        self,
        made: Step[..., Any],
        args: Any,
        kwargs: Any,
        place: Place,
        *,
        each: Node | None = None,
        when: Node | None = None,
    ) -> Node:
        hints = self._hints(made)
        self._look_at(made, hints)
        number = self.counts[made.name] = self.counts.get(made.name, 0) + 1
        first = "" if each is None else self._first(made, hints)
        if each is not None:
            args = (_Element(each), *args)
        returns = hints.get("return", Any)
        call = Call(
            id=made.name if number == 1 else f"{made.name}[{number}]",
            step=made,
            arguments=self._arguments(made, hints, args, kwargs, place),
            returns=returns,
            place=place,
            each=first,
            when=None if when is None else self._condition(made, when, place),
        )
        self.calls.append(call)
        self.by_id.setdefault(call.id, call)
        if each is not None:
            kind: Any = types.GenericAlias(list, (returns,))
            return Node(self, call.id, kind)
        perhaps: Any = typing.Union[returns, None]  # noqa: UP007 any kind, also a text
        return Node(self, call.id, returns if when is None else perhaps)

    def _first(self, made: Step[..., Any], hints: dict[str, Any]) -> str:
        """The parameter that takes the elements of `falaj.map`."""
        for name, parameter in inspect.signature(made.function).parameters.items():
            if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}:
                if hints.get(name) is not Dataset:
                    return name
                break
        self.find(
            "map-parameter",
            f"falaj.map: step {made.name} has no first parameter that takes an element",
            _home(made.function, self.root),
            fix="put the element's parameter first; datasets are bound by name, behind it",
        )
        return ""

    def _condition(self, made: Step[..., Any], when: Node, place: Place) -> Ref | None:
        kind = when._kind  # noqa: SLF001 the plan made the node
        if kind is bool:
            return Ref(when._call, when._part, bool)  # noqa: SLF001
        self.find(
            "condition-type",
            f"falaj.when: the condition of {made.name} is {show(kind)}, expected bool",
            place,
            fix="let a step return the bool; it is recorded with the run",
        )
        return None

    def _hints(self, made: Step[..., Any] | Pipeline[..., Any]) -> dict[str, Any]:
        if id(made) in self.hinted:
            return self.hinted[id(made)]
        try:
            hints = self.hinted[id(made)] = typing.get_type_hints(made.function)
        except Exception as error:
            self.find(
                "annotation-unreadable",
                f"{made.name}: {type(error).__name__}: {error}",
                _home(made.function, self.root),
                why="annotations are read at run time to check and store values",
                fix="import the name at the top of the file, not under TYPE_CHECKING",
            )
            return {}
        return hints

    def _look_at(self, made: Step[..., Any], hints: dict[str, Any]) -> None:
        """Findings about the step itself, once."""
        if self.steps.get(made.name) is made:
            return
        known = self.steps.setdefault(made.name, made)
        home = _home(made.function, self.root)
        if known is not made:
            self.find(
                "name-twice",
                f"two steps are called {made.name!r}",
                home,
                why=f"the other one stands at {_home(known.function, self.root)}",
                fix='give one of them another name: @step(name="...")',
            )
        function = made.function
        if inspect.isgeneratorfunction(function) or inspect.iscoroutinefunction(function):
            word = "generator" if inspect.isgeneratorfunction(function) else "coroutine"
            self.find(
                "not-a-plain-function",
                f"step {made.name} is a {word} function",
                home,
                why="its answer would be code that still has to run, not a value",
                fix="collect the values and return them",
            )
            return
        if not hints and made.function.__annotations__:
            return
        if "return" not in hints:
            self.find(
                "annotation-missing",
                f"step {made.name} does not say what it returns",
                home,
                fix="add `-> pl.DataFrame`, `-> Model`, `-> dict[str, float]` or the like",
            )
        else:
            self._look_at_answer(made, hints["return"], home)
        self._look_at_defaults(made, hints, home)

    def _look_at_answer(self, made: Step[..., Any], kind: Any, home: Place) -> None:
        for name, part in outputs_of(kind).items():
            if not self.storable(part):
                where = "" if name == RESULT else f" ({name})"
                self.find(
                    "type-not-storable",
                    f"step {made.name} returns {show(part)}{where}, which cannot be stored",
                    home,
                    why="stored are: polars.DataFrame and LazyFrame, pandas.DataFrame and "
                    "pyarrow.Table (with falaj[pandas]), numpy.ndarray, falaj.Model, "
                    "falaj.Picture, pathlib.Path of a file or folder, bytes, None, bool, int, float, str, dates, Enum, Literal, msgspec.Struct, "
                    "and lists, tuples and dicts of plain values",
                    fix=_cure(part),
                )

    def _look_at_defaults(self, made: Step[..., Any], hints: dict[str, Any], home: Place) -> None:
        for name, parameter in inspect.signature(made.function).parameters.items():
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
                self.find(
                    "open-signature",
                    f"step {made.name} takes *{name}",
                    home,
                    why="a step's inputs must be known by name",
                    fix="name each parameter",
                )
                continue
            if name not in hints:
                self.find(
                    "annotation-missing",
                    f"step {made.name}: parameter {name!r} has no type",
                    home,
                    fix=f"write `{name}: int`, `{name}: pl.DataFrame` or the like",
                )
                continue
            kind = hints[name]
            if parameter.default is not parameter.empty and kind is not Dataset:
                self._value(made.name, name, parameter.default, kind, home)

    def _arguments(
        self, made: Step[..., Any], hints: dict[str, Any], args: Any, kwargs: Any, place: Place
    ) -> dict[str, Argument]:
        signature = inspect.signature(made.function)
        try:
            bound = signature.bind_partial(*args, **kwargs)
        except TypeError as error:
            self.find(
                "bad-call",
                f"{made.name}: {error}",
                place,
                fix=f"its form is {made.name}{signature}",
            )
            return {}
        found: dict[str, Argument] = {}
        for name, parameter in signature.parameters.items():
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
                continue
            kind = hints.get(name, Any)
            if name in bound.arguments:
                default = parameter.default
                argument = self._argument(made, name, bound.arguments[name], kind, place, default)
            elif kind is Dataset:
                argument = self._dataset(made, name)
            elif parameter.default is not parameter.empty:
                argument = Given(parameter.default)
            else:
                self.find(
                    "argument-missing",
                    f"{made.name}: argument {name!r} is missing",
                    place,
                    fix=f"pass {name}=..., or give it a default in the step",
                )
                continue
            if argument is not None:
                found[name] = argument
        return found

    def _dataset(self, made: Step[..., Any], name: str) -> Bound | None:
        if name in self.datasets:
            return Bound(name)
        near = difflib.get_close_matches(name, list(self.datasets), 1)
        self.find(
            "no-such-dataset",
            f"step {made.name} asks for dataset {name!r}, which is not declared",
            _home(made.function, self.root),
            why=f"declared are: {', '.join(sorted(self.datasets)) or 'none'}",
            fix=f"did you mean {near[0]!r}?"
            if near
            else f'declare it in falaj.toml: [[datasets]] name = "{name}"',
        )
        return None

    def _argument(
        self,
        made: Step[..., Any],
        name: str,
        value: Any,
        kind: Any,
        place: Place,
        default: Any = inspect.Parameter.empty,
    ) -> Argument | None:
        if isinstance(value, _Element):
            return self._element(made, name, value.items, kind, place)
        if isinstance(value, Absent):
            return self._absent(made, name, kind, place, default)
        if isinstance(value, Node):
            return self._ref(made, name, value, kind, place, default)
        if isinstance(value, list | tuple) and any(isinstance(item, Node) for item in value):
            inner = (typing.get_args(kind) or (Any,))[0]
            items = [self._argument(made, name, item, inner, place) for item in value]
            refs = tuple(item for item in items if isinstance(item, Ref))
            if len(refs) != len(value):
                self.find(
                    "mixed-list",
                    f"{made.name}: {name} mixes answers of steps and plain values",
                    place,
                    fix="pass them as two parameters",
                )
            return Refs(refs, type(value))
        if kind is Dataset:
            self.find(
                "dataset-passed",
                f"{made.name}: dataset {name!r} is bound by its name, not passed",
                place,
                fix=f"leave {name} out of the call",
            )
            return None
        self._value(made.name, name, value, kind, place)
        return Given(value)

    def _absent(
        self, made: Step[..., Any], name: str, kind: Any, place: Place, default: Any
    ) -> Argument | None:
        if default is not inspect.Parameter.empty:
            return Given(default)
        if fits(type(None), kind):
            return Given(None)
        self.find(
            "type-mismatch",
            f"{made.name}: {name} gets the answer of a step that falaj.when left out",
            place,
            fix=f"give {name} a default, or annotate it `{show(kind)} | None`",
        )
        return None

    def _element(
        self, made: Step[..., Any], name: str, node: Node, kind: Any, place: Place
    ) -> Ref | None:
        """The list whose elements go to the parameter, one at a time."""
        given = node._kind  # noqa: SLF001 the plan made the node
        parts = typing.get_args(given)
        if typing.get_origin(given) is not list or not parts:
            self.find(
                "not-a-list",
                f"falaj.map: {node._call} gives {show(given)}, expected a list with its element's type",  # noqa: SLF001
                place,
                fix="annotate that step `-> list[int]` or the like",
            )
            return None
        if not fits(parts[0], kind):
            self.find(
                "type-mismatch",
                f"{made.name}: {name} gets {show(parts[0])} from {node._call}, expected {show(kind)}",  # noqa: SLF001
                place,
                fix="make the two annotations equal",
            )
            return None
        return Ref(node._call, node._part, given)  # noqa: SLF001

    def _ref(
        self,
        made: Step[..., Any],
        name: str,
        node: Node,
        kind: Any,
        place: Place,
        default: Any = inspect.Parameter.empty,
    ) -> Ref | None:
        given = node._kind  # noqa: SLF001 the plan made the node
        call = self._of(node)
        has_default = default is not inspect.Parameter.empty
        perhaps = call is not None and call.when is not None
        if perhaps and has_default and call is not None:
            given = call.returns  # what is skipped never reaches the parameter
        if not fits(given, kind):
            self.find(
                "type-mismatch",
                f"{made.name}: {name} gets {show(given)} from {node._call}, expected {show(kind)}",  # noqa: SLF001
                place,
                why="its step may be skipped by falaj.when" if perhaps else "",
                fix=f"give {name} a default, or annotate it `{show(kind)} | None`"
                if perhaps
                else "make the two annotations equal",
            )
            return None
        read = call.returns if perhaps and call is not None else given
        read = kind if _is_frame(kind) and _is_frame(read) else read
        return Ref(node._call, node._part, read, default if perhaps and has_default else None)  # noqa: SLF001

    def _of(self, node: Node) -> Call | None:
        return self.by_id.get(node._call)  # noqa: SLF001

    def _value(self, step: str, name: str, value: Any, kind: Any, place: Place) -> None:
        problem = value_problem(value, kind)
        if problem:
            fix = "declare a dataset, or list files in @step(reads=[...])"
            self.find(
                "parameter-type",
                f"{step}: {name}: {problem}",
                place,
                fix=fix if isinstance(value, os.PathLike) else "pass a value of the annotated type",
            )

    def parameters(self, made: Pipeline[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the pipeline's own parameters, texts of the command line parsed."""
        hints = self._hints(made)
        home = _home(made.function, self.root)
        known = inspect.signature(made.function).parameters
        for name in given:
            if name not in known:
                near = difflib.get_close_matches(name, list(known), 1)
                self.find(
                    "no-such-parameter",
                    f"pipeline {made.name} has no parameter {name!r}",
                    home,
                    why=f"its parameters are: {', '.join(known) or 'none'}",
                    fix=f"did you mean {near[0]!r}?" if near else "leave it out",
                )
        values: dict[str, Any] = {}
        for name, parameter in known.items():
            if name in given:
                values[name] = self._parsed(made, name, given[name], hints.get(name, Any), home)
            elif parameter.default is not parameter.empty:
                values[name] = parameter.default
            else:
                self.find(
                    "parameter-missing",
                    f"pipeline {made.name}: parameter {name!r} has no value",
                    home,
                    fix=f"falaj run --param {name}=..., or give it a default",
                )
        return values

    def _parsed(
        self, made: Pipeline[..., Any], name: str, value: Any, kind: Any, home: Place
    ) -> Any:
        if kind is Any:
            return value
        try:
            return parse_value(value, kind)
        except (msgspec.ValidationError, msgspec.DecodeError, ValueError, TypeError) as error:
            self.find(
                "parameter-type",
                f"pipeline {made.name}: {name}: got {value!r}, expected {show(kind)}",
                home,
                why=str(error),
                fix="pass a value of the annotated type",
            )
            return value

    def result(self, answer: Any, made: Pipeline[..., Any]) -> Ref | None:
        if answer is None or isinstance(answer, Absent):
            return None
        home = _home(made.function, self.root)
        if not isinstance(answer, Node):
            self.find(
                "result-not-a-step",
                f"pipeline {made.name} returns {type(answer).__name__}, expected a step's answer",
                home,
                fix="return what the last step returned, or nothing",
            )
            return None
        wanted = self._hints(made).get("return", Any)
        if not fits(answer._kind, wanted):  # noqa: SLF001 the plan made the node
            self.find(
                "type-mismatch",
                f"pipeline {made.name} returns {show(answer._kind)}, promised {show(wanted)}",  # noqa: SLF001
                home,
                fix="make the two annotations equal",
            )
        call = self._of(answer)
        listed = call is not None and bool(call.each)
        if listed or (answer._part is None and fields_of(answer._kind)):  # noqa: SLF001
            self.find(
                "result-not-a-step",
                f"pipeline {made.name} returns several artifacts, expected one",
                home,
                fix="return the answer of a step that joins them"
                if listed
                else "return one of its fields",
            )
        return Ref(answer._call, answer._part, answer._kind)  # noqa: SLF001


def _home(function: Callable[..., Any], root: Path) -> Place:
    code = inspect.unwrap(function).__code__
    return place_at(code.co_filename, code.co_firstlineno, root, code.co_name)


def show(kind: Any) -> str:
    """An annotation as its author wrote it, about."""
    if typing.get_args(kind) or not isinstance(kind, type):
        return str(kind).replace("typing.", "")
    module = kind.__module__
    short = {"polars.dataframe.frame": "polars", "polars.lazyframe.frame": "polars"}
    module = short.get(module, module)
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def _cure(kind: Any) -> str:
    text = str(kind)
    if "pandas" in text:
        return "pip install 'falaj[pandas]', or return polars.from_pandas(frame)"
    if "pyarrow" in text:
        return "pip install 'falaj[pandas]', or return polars.from_arrow(table)"
    if "matplotlib" in text or "Figure" in text:
        return "return falaj.Picture.of(figure)"
    if "Generator" in text or "Iterator" in text:
        return "collect the values into a list or a frame"
    if "sklearn" in text or "Estimator" in text:
        return "export the estimator to ONNX and return falaj.Model"
    return "return one of these types, or a NamedTuple of them"


def fits(given: Any, wanted: Any) -> bool:
    """Whether a value annotated `given` may be passed where `wanted` is asked. No coercion."""
    if wanted is Any or given == wanted or (_is_frame(given) and _is_frame(wanted)):
        return True
    unions = {typing.Union, types.UnionType}
    if typing.get_origin(given) in unions:
        return all(fits(part, wanted) for part in typing.get_args(given))
    if typing.get_origin(wanted) in unions:
        return any(fits(given, part) for part in typing.get_args(wanted))
    if isinstance(given, type) and isinstance(wanted, type):
        return issubclass(given, wanted)
    return typing.get_origin(given) is wanted


def _is_frame(kind: Any) -> bool:
    """Frames of one library may be read as another's: all lie as Parquet."""
    library, _, _ = getattr(kind, "__module__", "").partition(".")
    return getattr(kind, "__name__", "") in FRAMES.get(library, ())


def value_problem(value: Any, kind: Any) -> str:
    """Why `value` is no parameter of type `kind`; empty when it is one."""
    if isinstance(value, os.PathLike):
        return "a path is not a parameter: its bytes could change unseen"
    if kind is not Any and not is_plain(kind):
        return f"{show(kind)} is not a parameter type"
    try:
        canonical_value(value)
    except ValueError as error:
        return str(error)
    if kind is Any:
        return ""
    try:
        msgspec.convert(value, type=kind)
    except (msgspec.ValidationError, TypeError):
        return f"got {value!r}, expected {show(kind)}"
    return ""


def parse_value(value: Any, kind: Any) -> Any:
    """Read a parameter from TOML or from the text of `--param`. Raises ValueError or msgspec's."""
    if isinstance(value, str) and kind is not str:
        options = [kind]
        if typing.get_origin(kind) in {typing.Union, types.UnionType}:
            options = [part for part in typing.get_args(kind) if part is not type(None)]
        if _is_compound(options[0]) and value[:1] in {"[", "{", '"'}:
            return msgspec.json.decode(value, type=kind)
        return msgspec.convert(value, type=kind, strict=False)
    return msgspec.convert(value, type=kind)


def _is_compound(kind: Any) -> bool:
    base = typing.get_origin(kind) or kind
    return base in {list, tuple, dict} or hasattr(base, "__struct_fields__")


def canonical_value(value: Any) -> Any:
    """A value as JSON that is equal only for equal values of equal types. Raises ValueError."""
    match value:
        case enum.Enum():
            return {"enum": f"{type(value).__qualname__}.{value.name}"}
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) < 2**53 else {"int": str(value)}
        case float():
            if math.isnan(value):
                raise ValueError("NaN is not a parameter: it does not equal itself")
            return {"float": repr(value)}
        case datetime() | date() | time():
            return {type(value).__name__: value.isoformat()}
        case timedelta():
            return {"timedelta": str(value // timedelta(microseconds=1))}
        case list() | tuple():
            return {type(value).__name__: [canonical_value(item) for item in value]}
        case dict():
            if not all(isinstance(key, str) for key in value):
                raise ValueError("the keys of a dict must be text")
            return {"dict": [[key, canonical_value(value[key])] for key in sorted(value)]}
        case msgspec.Struct():
            pairs = [
                [name, canonical_value(getattr(value, name))] for name in value.__struct_fields__
            ]
            return {"struct": type(value).__qualname__, "fields": pairs}
        case _:
            raise ValueError(f"{type(value).__qualname__} is not a parameter type")
