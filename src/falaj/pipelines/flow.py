"""`falaj.map` and `falaj.when`: shapes of a pipeline that depend on answers of steps."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from falaj.pipelines.declare import PLANNING, Absent, Node, Step, place_of

__all__ = ["each", "when"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def each(
    step: Callable[Concatenate[T, P], R],
    items: Sequence[T],
    /,
    *args: P.args,
    **kwargs: P.kwargs,
) -> list[R]:
    """Run a step once for each element, as its first argument: `falaj.map(fit, depths, rows)`.

    items: a list that is known while planning, or the answer of a step that returns a list, or of
    another `falaj.map`. Each element is a step run with a key of its own, so a longer list runs
    its new elements only. Pass the answer on where a list is asked for.
    """
    plan = PLANNING.get()
    if plan is None:
        return [step(item, *args, **kwargs) for item in items]
    place = place_of(sys._getframe(1), plan.root)  # noqa: SLF001 the caller's line
    if not isinstance(step, Step):
        plan.refuse(
            "pipelines.not-a-step",
            f"falaj.map: got {type(step).__name__}, expected a step",
            place,
            "decorate the function with @step",
        )
        return []
    given: Any = items  # while planning it may be a Node, which the annotation hides
    if isinstance(given, Node):
        node: Any = plan.call(step, args, kwargs, place, each=given)
        return node  # type: ignore[no-any-return]
    if not isinstance(given, list | tuple):
        plan.refuse(
            "pipelines.not-a-list",
            f"falaj.map: got {type(items).__name__}, expected a list",
            place,
            "pass a list, or the answer of a step that returns one",
        )
        return []
    nodes: Any = [plan.call(step, (item, *args), kwargs, place) for item in items]
    return nodes  # type: ignore[no-any-return]


def when(condition: bool, step: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R | None:
    """Run a step only if the condition holds: `falaj.when(drifted(rows), fit, rows)`.

    condition: a value that is known while planning, or the answer of a step that returns a bool.
    Where it does not hold the step is recorded as skipped, and whoever takes its answer gets the
    default of that parameter, or None. A parameter with neither is refused while planning.
    """
    plan = PLANNING.get()
    if plan is None:
        return step(*args, **kwargs) if condition else None
    place = place_of(sys._getframe(1), plan.root)  # noqa: SLF001 the caller's line
    if not isinstance(step, Step):
        plan.refuse(
            "pipelines.not-a-step",
            f"falaj.when: got {type(step).__name__}, expected a step",
            place,
            "decorate the function with @step; pass its arguments behind it",
        )
        return None
    given: Any = condition  # while planning it may be a Node, which the annotation hides
    if isinstance(given, Node):
        node: Any = plan.call(step, args, kwargs, place, when=given)
        return node  # type: ignore[no-any-return]
    if not isinstance(given, bool):
        plan.refuse(
            "pipelines.condition-type",
            f"falaj.when: got {type(condition).__name__}, expected a bool",
            place,
            "pass True or False, or the answer of a step that returns a bool",
        )
        return None
    chosen: Any = plan.call(step, args, kwargs, place) if condition else Absent()
    return chosen  # type: ignore[no-any-return]
