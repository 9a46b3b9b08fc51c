"""The user's modules, read anew: an edited file is seen in a process that lives long."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from falaj.base.errors import FalajError, Place, Problem
from falaj.pipelines.closure import is_inside
from falaj.pipelines.declare import Pipeline, place_at

__all__ = ["load_pipeline", "project", "project_modules"]


class _Fresh(importlib.machinery.SourceFileLoader):
    """Reads source, never bytecode: within one second, equal size means equal to Python's cache."""

    def path_stats(self, path: str) -> Any:
        raise OSError(f"no bytecode for {path}")


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = [os.path.realpath(root) + os.sep for root in roots]

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec and spec.origin and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            real = os.path.realpath(spec.origin)
            if is_inside(real, self.roots):
                spec.loader = _Fresh(name, spec.origin)
        return spec


def project_modules(roots: Sequence[Path]) -> dict[str, str]:
    """Loaded modules that are the project's own: name -> real path of the file."""
    starts = [os.path.realpath(root) + os.sep for root in roots]
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            real = os.path.realpath(file)
            if is_inside(real, starts):
                found[name] = real
    return found


# sys.path, sys.modules and the seeds belong to the whole process.
ONE_AT_A_TIME: Final = threading.RLock()


@contextmanager
def project(roots: Sequence[Path]) -> Iterator[None]:
    """Make the project importable, with its modules read anew; everything is put back after.

    One thread at a time: another one waits.
    """
    with ONE_AT_A_TIME, _imported_anew(roots):
        yield


@contextmanager
def _imported_anew(roots: Sequence[Path]) -> Iterator[None]:
    kept_path = list(sys.path)
    starts = [os.path.realpath(root) + os.sep for root in roots]
    kept = {name: sys.modules.pop(name) for name in _ours(starts)}
    finder = _Finder(roots)
    sys.path[:0] = [str(root) for root in roots]
    sys.meta_path.insert(0, finder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        sys.path[:] = kept_path
        for name in _ours(starts):
            del sys.modules[name]
        sys.modules.update(kept)


def _ours(starts: Sequence[str]) -> list[str]:
    """Names to forget: the project's files and its namespace packages."""
    found = []
    for name, module in list(sys.modules.items()):
        if name == "__main__" or name.partition(".")[0] == "falaj":
            continue
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            inside = is_inside(os.path.realpath(file), starts)
        else:
            inside = any(
                is_inside(os.path.realpath(part) + os.sep, starts)
                for part in getattr(module, "__path__", None) or ()
            )
        if inside:
            found.append(name)
    return found


def load_pipeline(reference: str, root: Path) -> Pipeline[..., Any]:
    """Import `module:function` and return the pipeline. Call it inside `project`."""
    module_name, colon, name = reference.partition(":")
    if not (module_name and colon and name):
        raise FalajError(
            "pipelines.bad-reference",
            f"pipeline: got {reference!r}, expected module:function",
            fix='write it as pipeline = "pipeline:delay" in falaj.toml',
        )
    module = _module(module_name, root)
    found = getattr(module, name, None)
    if isinstance(found, Pipeline):
        return found
    known = sorted(key for key, value in vars(module).items() if isinstance(value, Pipeline))
    what = "is not decorated with @pipeline" if callable(found) else "does not exist"
    raise FalajError(
        "pipelines.no-such-pipeline",
        f"{reference}: {name} {what}",
        place=Place(file=_named(str(module.__file__), root), line=1),
        why=f"pipelines in this file: {', '.join(known) or 'none'}",
        fix="decorate the function with @pipeline, or name another one in falaj.toml",
    )


def _module(name: str, root: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name or name.startswith(f"{error.name}."):
            raise FalajError(
                "pipelines.no-such-module",
                f"module {name!r} was not found below {root}",
                fix=f"make {name.replace('.', '/')}.py, or name another module in falaj.toml",
            ) from None
        raise _broken(name, error, root) from None
    except SyntaxError as error:
        place = Place(
            file=_named(error.filename or name, root),
            line=error.lineno or 1,
            column=error.offset or 1,
            excerpt=((error.lineno or 1, (error.text or "").strip()),),
        )
        raise FalajError(
            "pipelines.syntax",
            f"{error.msg}",
            place=place,
            fix="mend the line",
        ) from None
    except FalajError as error:
        raise FalajError.of(tuple(_inside_project(p, root) for p in error.problems)) from None
    except Exception as error:
        raise _broken(name, error, root) from None


def _inside_project(problem: Problem, root: Path) -> Problem:
    """A decorator does not know the project: name its place from the project's folder."""
    if problem.place is None:
        return problem
    return replace(problem, place=replace(problem.place, file=_named(problem.place.file, root)))


def _broken(name: str, error: Exception, root: Path) -> FalajError:
    places = user_places(error, root)
    rest = tuple(
        Problem(code="pipelines.import-failed", message="called from here", place=place)
        for place in places[:-1][-3:]
    )
    return FalajError(
        "pipelines.import-failed",
        f"importing {name}: {type(error).__name__}: {error}",
        place=places[-1] if places else None,
        fix="mend the line; nothing was run",
        more=rest,
    )


def user_places(error: BaseException, root: Path) -> list[Place]:
    """Lines of the user's own files in a traceback, outermost first."""
    found = []
    trace = error.__traceback__
    start = [os.path.realpath(root) + os.sep]
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if is_inside(os.path.realpath(file), start):
            found.append(place_at(file, trace.tb_lineno, root, trace.tb_frame.f_code.co_name))
        trace = trace.tb_next
    return found


def _named(file: str, root: Path) -> str:
    path = Path(file)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else file
