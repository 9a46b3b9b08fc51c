"""`@step` and `@pipeline`: plain functions with a few promises. Nothing runs here."""

from __future__ import annotations

import functools
import inspect
import linecache
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType, FunctionType
from typing import Any, Final, Generic, Never, ParamSpec, Protocol, TypeVar, overload

from falaj.base.errors import FalajError, Place

__all__ = [
    "PLANNING",
    "Absent",
    "Node",
    "Options",
    "Pipeline",
    "Recorder",
    "Step",
    "fields_of",
    "pipeline",
    "place_at",
    "place_of",
    "step",
]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may be said in `@step(...)`.

    version: forces new keys. reads: globs below the project. env: names of variables.
    timeout: of one attempt. retries: of lost workers, and of exceptions in retry_on.
    fresh: how long an answer about the world outside counts. resources: what it takes.
    isolate: a process of its own.
    """

    name: str
    version: int = 0
    cache: bool = True
    timeout: timedelta | None = None
    retries: int = 1
    retry_on: tuple[type[Exception], ...] = ()
    reads: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    fresh: timedelta | None = None
    resources: Mapping[str, float] = field(default_factory=dict)
    isolate: bool = False


class Recorder(Protocol):
    """The plan that is being made."""

    root: Path

    def call(
        self,
        made: Step[..., Any],
        args: Any,
        kwargs: Any,
        place: Place,
        *,
        each: Node | None = None,
        when: Node | None = None,
    ) -> Node: ...

    def refuse(self, code: str, message: str, place: Place, fix: str) -> None: ...

    def inside(self, made: Pipeline[..., Any], place: Place) -> None: ...


PLANNING: Final[ContextVar[Recorder | None]] = ContextVar("falaj_planning", default=None)


class Step(Generic[P, R]):
    """A function that runs once per key. Called outside a plan it is the function itself."""

    def __init__(self, function: Callable[P, R], options: Options, file: str) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.options = options
        self.file = file  # where it was made a step; a decorator may lie in another file

    @property
    def name(self) -> str:
        return self.options.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        plan = PLANNING.get()
        if plan is None:
            return self.function(*args, **kwargs)
        node: Any = plan.call(self, args, kwargs, place_of(sys._getframe(1), plan.root))  # noqa: SLF001 the caller's line
        return node  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"<step {self.name}>"


class Pipeline(Generic[P, R]):
    """A function that calls steps. It is run once to learn which, with which arguments."""

    def __init__(self, function: Callable[P, R], name: str) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        plan = PLANNING.get()
        if plan is not None:
            plan.inside(self, place_of(sys._getframe(1), plan.root))  # noqa: SLF001 the caller's line
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<pipeline {self.name}>"


@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = ...,
    version: int = ...,
    cache: bool = ...,
    timeout: str | timedelta | None = ...,
    retries: int = ...,
    retry_on: Sequence[type[Exception]] = ...,
    reads: Sequence[str] = ...,
    env: Sequence[str] = ...,
    fresh: str | timedelta | None = ...,
    resources: Mapping[str, float] | None = ...,
    isolate: bool = ...,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: int = 0,
    cache: bool = True,
    timeout: str | timedelta | None = None,
    retries: int = 1,
    retry_on: Sequence[type[Exception]] = (),
    reads: Sequence[str] = (),
    env: Sequence[str] = (),
    fresh: str | timedelta | None = None,
    resources: Mapping[str, float] | None = None,
    isolate: bool = False,
) -> Any:
    """Make a function a step: cached by its code and inputs, recorded, reproducible.

    Args:
        function: given when used without brackets.
        name: of the step; the function's name when left out.
        version: raise it to force a rerun.
        cache: False for steps that must run each time.
        timeout: of one attempt, such as `30m`.
        retries: how often a lost attempt is repeated; exceptions only when listed in retry_on.
            TimeoutError in retry_on lists the step's own timeout too.
        retry_on: exceptions worth another attempt.
        reads: globs of files below the project that the step reads, such as `sql/*.sql`.
        env: names of environment variables that the step reads.
        fresh: for a step that looks outside: its answer counts within one such span, such as
            `1d` (spans are cut from the first of January 1970, UTC).
        resources: `cpu` (cores, 1 when left out), `memory_mb` and `gpu`; recorded, and `cpu`
            holds back other steps of the run.
        isolate: run each attempt in a process of its own.
    """

    def made(inner: Callable[..., Any]) -> Step[..., Any]:
        frame = sys._getframe(2 if inner is function else 1)  # noqa: SLF001 the line of the decorator
        if not isinstance(inspect.unwrap(inner), FunctionType):
            raise FalajError(
                "pipelines.not-a-function",
                f"@step: got {type(inner).__name__}, expected a function",
                place=place_of(frame, Path.cwd()),
                fix="write a function that calls it, and make that a step",
            )
        _refuse_options(frame, retries, retry_on, resources)
        options = Options(
            name=name or inner.__name__,
            version=version,
            cache=cache,
            timeout=_span(timeout, "timeout"),
            retries=retries,
            retry_on=tuple(retry_on),
            reads=(reads,) if isinstance(reads, str) else tuple(reads),
            env=(env,) if isinstance(env, str) else tuple(env),
            fresh=_span(fresh, "fresh"),
            resources=dict(resources or {}),
            isolate=isolate,
        )
        return Step(inner, options, frame.f_code.co_filename)

    return made if function is None else made(function)


def pipeline(function: Callable[P, R], /) -> Pipeline[P, R]:
    """Make a function a pipeline: it is run once with its parameters to learn its steps."""
    return Pipeline(function, function.__name__)


RESOURCES: Final = ("cpu", "memory_mb", "gpu")


def _refuse_options(
    frame: FrameType,
    retries: int,
    retry_on: Sequence[type[Exception]],
    resources: Mapping[str, float] | None,
) -> None:
    """Raise FalajError for an option that could never work."""
    wrong = ""
    if isinstance(retries, bool) or not isinstance(retries, int) or not 0 <= retries <= 100:
        wrong = f"retries: got {retries!r}, expected 0 to 100"
    elif not isinstance(retry_on, list | tuple) or not all(
        isinstance(kind, type) and issubclass(kind, Exception) for kind in retry_on
    ):
        wrong = f"retry_on: got {retry_on!r}, expected a list of exception classes"
    for name, amount in (resources or {}).items():
        if name not in RESOURCES:
            wrong = f"resources: {name!r} is not one of {', '.join(RESOURCES)}"
        elif isinstance(amount, bool) or not isinstance(amount, int | float) or amount < 0:
            wrong = f"resources: {name} is {amount!r}, expected a number of 0 or more"
    if wrong:
        raise FalajError(
            "pipelines.bad-option",
            f"@step: {wrong}",
            place=place_of(frame, Path.cwd()),
            fix="write it as @step(retries=2, retry_on=[OSError], resources={'cpu': 2})",
        )


def _span(given: str | timedelta | None, what: str) -> timedelta | None:
    from falaj.base.time import parse_span

    try:
        span = parse_span(given) if isinstance(given, str) else given
        if span is not None and span <= timedelta(0):
            raise ValueError(f"got {given!r}, expected more than nothing")
    except ValueError as error:
        place = place_of(sys._getframe(2), Path.cwd())  # noqa: SLF001 the line of the decorator
        raise FalajError(
            "pipelines.bad-timeout",
            f"{what}: {error}",
            place=place,
            fix=f"write it as {what}='30m'",
        ) from None
    return span


def fields_of(kind: Any) -> dict[str, Any]:
    """Names and kinds of the parts of a NamedTuple or a fixed tuple; empty for all else."""
    import typing

    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return typing.get_type_hints(kind)
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is tuple and parts and parts[-1] is not Ellipsis:
        return {str(index): part for index, part in enumerate(parts)}
    return {}


class Absent:
    """The answer of a step that a condition known while planning left out."""


class Node:
    """The answer of a step that has not run yet: pass it to a step, nothing else is known."""

    __hash__ = object.__hash__

    def __init__(self, plan: Recorder, call: str, kind: Any, part: str | None = None) -> None:
        self._plan = plan
        self._call = call
        self._kind = kind
        self._part = part

    def _parts(self) -> list[Node]:
        if self._part is not None:
            return []
        found = fields_of(self._kind)
        return [Node(self._plan, self._call, kind, name) for name, kind in found.items()]

    def __getattr__(self, name: str) -> Node:
        if not name.startswith("_"):
            for part in self._parts():
                if part.__dict__["_part"] == name:
                    return part
        return self._refuse(f"its attribute {name!r}")

    def __iter__(self) -> Iterator[Node]:
        parts = self._parts()
        return iter(parts) if parts else self._refuse("its items (a loop or unpacking)")

    def __getitem__(self, key: Any) -> Node:
        parts = self._parts()
        if parts and isinstance(key, int) and -len(parts) <= key < len(parts):
            return parts[key]
        return self._refuse(f"its item {key!r}")

    def __bool__(self) -> bool:
        return self._refuse("its truth (if, and, or, not)")

    def __len__(self) -> int:
        return self._refuse("its length")

    def __eq__(self, other: object) -> bool:
        return self._refuse("a comparison")

    def __ne__(self, other: object) -> bool:
        return self._refuse("a comparison")

    def __str__(self) -> str:
        return self._refuse("its text")

    def __format__(self, spec: str) -> str:
        return self._refuse("its text")

    def __repr__(self) -> str:
        part = "" if self._part is None else f".{self._part}"
        return f"<answer of step {self._call}{part}, not known yet>"

    def _refuse(self, asked: str) -> Never:
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 the line that asked
        while frame is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        raise FalajError(
            "pipelines.value-not-known-yet",
            f"the answer of step {self._call} is not known while planning; asked for {asked}",
            place=None if frame is None else place_of(frame, self._plan.root),
            why="a @pipeline function runs once, before any step, to learn which steps there are",
            fix="make the value a parameter of the pipeline, or do this inside a step",
        )


def _refused(asked: str) -> Callable[..., Any]:
    def refuse(self: Node, *_: object) -> Never:
        self._refuse(asked)

    return refuse


for _word, _names in {
    "a comparison": "lt le gt ge contains",
    "arithmetic": "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod pow rpow "
    "matmul rmatmul and rand or ror xor rxor neg pos abs invert round lshift rshift divmod",
    "its number": "int float index complex",
    "a call": "call",
    "an assignment": "setitem delitem",
    "a with block": "enter exit",
}.items():
    for _name in _names.split():
        setattr(Node, f"__{_name}__", _refused(_word))


def place_of(frame: FrameType, root: Path) -> Place:
    """The line that `frame` stands on."""
    return place_at(frame.f_code.co_filename, frame.f_lineno, root, frame.f_code.co_name)


def place_at(filename: str, line: int, root: Path, function: str = "") -> Place:
    """A line of the user's code, named from the project's folder, with its text."""
    path = Path(filename)
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else filename
    linecache.checkcache(filename)
    text = linecache.getline(filename, line).strip()
    inside = "" if function in {"", "<module>"} else f"in {function}"
    return Place(file=name, line=line, excerpt=((line, text),) if text else (), note=inside)
