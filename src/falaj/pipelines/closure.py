"""Which code a step stands on: its file and all project files it imports, as syntax, not layout.

Bodies of sibling steps are left out unless something kept names them, so that editing `train`
does not rerun `load` in a file of both. When the code looks at itself by name (globals, getattr
and the like) nothing is left out.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

from falaj.ports.cache import Memo

__all__ = ["Closure", "Scanner", "is_inside"]

MEMO: Final = f"closure1-{sys.version_info.major}.{sys.version_info.minor}"  # ast.dump differs
NAME_LIKE: Final = re.compile(r"[A-Za-z_][\w.:]*")
REFLECTS: Final = frozenset(
    (
        *("globals", "locals", "vars", "eval", "exec", "getattr", "__dict__", "getsource"),
        *("modules", "currentframe", "getmembers", "attrgetter", "methodcaller", "_getframe"),
        *("__globals__", "__getattribute__", "f_globals", "f_locals", "__builtins__", "runpy"),
    )
)
LOADERS: Final = frozenset(
    ("spec_from_file_location", "SourceFileLoader", "run_path", "run_module", "exec_module")
)
COMPILED: Final = (".so", ".pyd")

INSTALLED: Final = ("site-packages", "dist-packages")
LIBRARY: Final = tuple(
    {os.path.realpath(sysconfig.get_path(kind)) + os.sep for kind in ("stdlib", "platstdlib")}
)

Import: TypeAlias = tuple[int, str, tuple[str, ...]]  # level, module, names


@dataclass(frozen=True)
class Piece:
    """One top-level statement. name: of a step whose body may be left out, else empty.

    reflects: it looks at code by name. dynamic: it imports by names that are computed.
    """

    label: str
    digest: str
    mentions: frozenset[str]
    imports: tuple[Import, ...]
    reflects: bool = False
    dynamic: bool = False
    name: str = ""
    header: Piece | None = None  # what runs on import even when the body is left out


@dataclass(frozen=True)
class Source:
    """What one file's syntax says. A file of many steps is asked once for each of them."""

    pieces: tuple[Piece, ...]

    @cached_property
    def digest(self) -> str:
        return _join(piece.digest for piece in self.pieces)

    @cached_property
    def always(self) -> dict[int, Piece]:
        """Place in the file -> what counts whoever asks: headers stand for what may be left out."""
        found = (
            (at, piece.header if piece.name else piece) for at, piece in enumerate(self.pieces)
        )
        return {at: piece for at, piece in found if piece is not None}

    @cached_property
    def steps(self) -> dict[str, list[int]]:
        """Name -> places of what may be left out."""
        found: dict[str, list[int]] = {}
        for at, piece in enumerate(self.pieces):
            if piece.name:
                found.setdefault(piece.name, []).append(at)
        return found


@dataclass
class Closure:
    """files: path -> digest of the kept code. parents: path -> the file that imported it.

    definitions: path -> label of each kept top-level definition -> digest, for telling people.
    """

    files: dict[str, str] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    definitions: dict[str, dict[str, str]] = field(default_factory=dict)
    dynamic: bool = False


class Scanner:
    """Reads each file once per plan; syntax is remembered by the file's bytes in `memo`."""

    def __init__(self, roots: Sequence[Path], *, base: Path, memo: Memo | None = None) -> None:
        self.roots = tuple(sorted({_real(root) for root in roots}, key=lambda r: -len(r)))
        self.base = _real(base)
        self.memo = memo
        self._sources: dict[str, Source] = {}
        self._listed: dict[str, frozenset[str]] = {}
        self._shown: dict[str, str] = {}
        self._reals: dict[str, str] = {}

    def closure(self, file: str | Path, step: str, *, also: str | Path | None = None) -> Closure:
        """The code of step function `step` in `file`.

        also: the file where it was made a step, when a decorator hides its home.
        """
        walk = _Walk(self, self._real(file), step)
        if also is not None:
            walk.start(self._real(also))
        return walk.closure()

    def _real(self, file: str | Path) -> str:
        """Looking for links costs a question a folder, for each of many steps of one file."""
        text = str(file)
        if text not in self._reals:
            self._reals[text] = _real(text)
        return self._reals[text]

    def digest(self, file: str) -> str:
        """Digest of a whole file, comments and layout apart."""
        return _bytes_digest(file) if file.endswith(COMPILED) else self.source(file).digest

    def named(self, file: str) -> str:
        """The file's name as people see it."""
        if file not in self._shown:
            path = Path(file)
            inside = path.is_relative_to(self.base)
            self._shown[file] = path.relative_to(self.base).as_posix() if inside else file
        return self._shown[file]

    def place(self, name: str) -> str:
        """The file of a name given by `named`."""
        return os.path.join(self.base, name)  # noqa: PTH118 plain text is a third of the cost

    def is_project(self, file: str) -> bool:
        """Whether a loaded module's file is the project's code, not an installed package."""
        real = _real(file)
        return is_inside(real, [root + os.sep for root in self.roots])

    def source(self, file: str) -> Source:
        if file not in self._sources:
            data = Path(file).read_bytes()
            key = hashlib.sha256(data).hexdigest()
            kept = self.memo.memo(MEMO, key) if self.memo else None
            if kept is None:
                found = _scan(data, file)
                if self.memo:
                    self.memo.remember(MEMO, key, json.dumps(_packed(found)))
            else:
                found = _unpacked(json.loads(kept))
            self._sources[file] = found
        return self._sources[file]

    def package(self, file: str) -> tuple[str, ...]:
        """Dotted parts of the package that the file lies in, below its root."""
        for root in self.roots:
            if file.startswith(root + os.sep):
                return Path(file[len(root) + 1 :]).parts[:-1]
        return ()

    def resolve(self, dotted: str) -> Iterator[str]:
        """Project files that importing `dotted` would run: the module and each package above."""
        parts = [part for part in dotted.split(".") if part]
        for count in range(1, len(parts) + 1):
            *above, last = parts[:count]
            for root in self.roots:
                folder = os.sep.join([root, *above])  # noqa: PTH118 called for every import
                names = self._names(folder)
                if last + ".py" in names:
                    yield f"{folder}{os.sep}{last}.py"
                if last in names:
                    inner = f"{folder}{os.sep}{last}"
                    if "__init__.py" in self._names(inner):
                        yield f"{inner}{os.sep}__init__.py"
                for name in names:
                    if name.endswith(COMPILED) and name.split(".", 1)[0] == last:
                        yield f"{folder}{os.sep}{name}"

    def _names(self, folder: str) -> frozenset[str]:
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(folder))  # noqa: PTH208 names are wanted
            except OSError:
                self._listed[folder] = frozenset()
        return self._listed[folder]


class _Walk:
    """One closure: files reached, pieces kept, repeated until nothing is added."""

    def __init__(self, scanner: Scanner, entry: str, step: str) -> None:
        self.scanner = scanner
        self.entry = entry
        self.step = step
        self.found: dict[str, str] = {}
        self.todo: list[str] = []
        self.mentions: set[str] = set()
        self.kept: dict[str, set[str]] = {}  # file -> names of steps whose bodies count
        self.everything = False
        self.dynamic = False
        self.start(entry)

    def start(self, file: str) -> None:
        """Begin at a file, with the packages that it lies in."""
        if not Path(file).is_file():
            return  # made by exec: its text is part of the file that made it
        self._reach(file, "")
        for name in self.scanner.resolve(".".join(self.scanner.package(file))):
            self._reach(name, "")

    def closure(self) -> Closure:
        while True:
            while self.todo:
                self._open(self.todo.pop())
            woken = [
                (file, name)
                for file, kept in self.kept.items()
                for name in self._named(file) - kept
            ]
            if not woken:
                return self._answer()
            for file, name in sorted(woken):
                self._wake(file, name)

    def _named(self, file: str) -> set[str]:
        """Names of the file's steps that something kept speaks of."""
        steps = self.scanner.source(file).steps
        return set(steps) if self.everything else steps.keys() & self.mentions

    def _open(self, file: str) -> None:
        if file.endswith(COMPILED):
            return
        source = self.scanner.source(file)
        self.kept[file] = set()
        for piece in source.always.values():
            self._keep(piece, file)
        if file == self.entry and self.step in source.steps:
            self._wake(file, self.step)

    def _wake(self, file: str, name: str) -> None:
        source = self.scanner.source(file)
        self.kept[file].add(name)
        for at in source.steps[name]:
            self._keep(source.pieces[at], file)

    def _keep(self, piece: Piece, file: str) -> None:
        self.mentions |= piece.mentions
        self.everything = self.everything or piece.reflects
        self.dynamic = self.dynamic or piece.dynamic
        for level, module, names in piece.imports:
            for dotted in _dotted(level, module, names, self.scanner.package(file)):
                for path in self.scanner.resolve(dotted):
                    self._reach(path, file)

    def _reach(self, path: str, parent: str) -> None:
        if path not in self.found:
            self.found[path] = parent
            self.todo.append(path)

    def _answer(self) -> Closure:
        answer = Closure(dynamic=self.dynamic)
        named = self.scanner.named
        for file, parent in self.found.items():
            name = named(file)
            if parent:
                answer.parents[name] = named(parent)
            if file.endswith(COMPILED):
                answer.files[name] = _bytes_digest(file)
                continue
            source = self.scanner.source(file)
            bodies = {at: source.pieces[at] for n in self.kept[file] for at in source.steps[n]}
            pieces = [piece for _, piece in sorted({**source.always, **bodies}.items(), key=_first)]
            answer.files[name] = _join(piece.digest for piece in pieces)
            answer.definitions[name] = _labelled(pieces)
        answer.files = dict(sorted(answer.files.items()))
        return answer


def _first(pair: tuple[int, Piece]) -> int:
    return pair[0]


def _dotted(
    level: int, module: str, names: tuple[str, ...], package: tuple[str, ...]
) -> Iterator[str]:
    base = list(package[: len(package) - level + 1]) if level else []
    start = ".".join([*base, *([module] if module else [])])
    if start:
        yield start
    for name in names:
        yield f"{start}.{name}" if start else name


# -- one file ------------------------------------------------------------------------------------


def _scan(data: bytes, file: str) -> Source:
    try:
        tree = ast.parse(data, filename=file)
    except (SyntaxError, ValueError):
        # Reached by name but not importable as it is: its bytes count.
        whole = hashlib.sha256(data).hexdigest()
        return Source((Piece("the file", whole, frozenset(), ()),))
    names = _falaj_names(tree)
    bound = _bindings(tree)
    star = any(
        isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names)
        for node in ast.walk(tree)
    )
    pieces = []
    for statement in tree.body:
        if _is_main_block(statement):
            continue  # a step's module is imported, never run as a script
        droppable = not star and _is_step(statement, names, bound)
        pieces.append(_piece(statement, droppable))
    return Source(tuple(pieces))


def _piece(statement: ast.stmt, droppable: bool) -> Piece:
    seen = _look(statement)
    mentions = set() if _is_all(statement) else seen.mentions
    name, header = "", None
    if droppable and isinstance(statement, ast.FunctionDef):
        name, header = statement.name, _header(statement)
    return Piece(
        label=_label(statement),
        digest=hashlib.sha256(ast.dump(statement).encode()).hexdigest(),
        mentions=frozenset(mentions),
        imports=tuple(seen.imports),
        reflects=seen.reflects,
        dynamic=seen.dynamic,
        name=name,
        header=header,
    )


def _header(function: ast.FunctionDef) -> Piece | None:
    """Decorator arguments, defaults and annotations that do more than name things."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [a for a in (arguments.vararg, arguments.kwarg) if a]
    parts: list[ast.expr | None] = [*arguments.defaults, *arguments.kw_defaults, function.returns]
    parts += [a.annotation for a in every]
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call):
            parts += [*decorator.args, *(word.value for word in decorator.keywords)]
    busy = [part for part in parts if part is not None and not _is_still(part)]
    if not busy:
        return None
    seen = _look(*busy)
    text = "".join(ast.dump(part) for part in busy)
    return Piece(
        label=f"signature of {function.name}",
        digest=hashlib.sha256(text.encode()).hexdigest(),
        mentions=frozenset(seen.mentions),
        imports=tuple(seen.imports),
        reflects=seen.reflects,
        dynamic=seen.dynamic,
    )


def _is_still(node: ast.expr) -> bool:
    """Whether evaluating it only names things: names, constants, and lists and unions of them."""
    quiet = (
        *(ast.Name, ast.Constant, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Set),
        *(ast.Dict, ast.BinOp, ast.BitOr, ast.UnaryOp, ast.USub, ast.Load, ast.Starred),
    )
    return all(isinstance(inner, quiet) for inner in ast.walk(node))


@dataclass
class _Seen:
    mentions: set[str] = field(default_factory=set)
    imports: list[Import] = field(default_factory=list)
    reflects: bool = False
    dynamic: bool = False


def _look(*roots: ast.AST) -> _Seen:
    seen = _Seen()
    for root in roots:
        own = _own_names(root)
        quiet = _literal_getattrs(root)
        for node in ast.walk(root):
            if id(node) not in own and id(node) not in quiet:
                _note(node, seen)
    seen.reflects = bool(seen.mentions & REFLECTS)
    seen.dynamic = seen.dynamic or bool(seen.mentions & LOADERS)
    return seen


def _own_names(root: ast.AST) -> set[int]:
    """Names in a function's body that are its parameters: they name no sibling."""
    if not isinstance(root, ast.FunctionDef):
        return set()
    arguments = root.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named = {argument.arg for argument in every}
    inner = [node for statement in root.body for node in ast.walk(statement)]
    return {id(node) for node in inner if isinstance(node, ast.Name) and node.id in named}


def _literal_getattrs(root: ast.AST) -> set[int]:
    """`getattr(x, "name")` looks at one known name, which the string already mentions."""
    found = set()
    for node in ast.walk(root):
        match node:
            case ast.Call(
                func=ast.Name(id="getattr") as func, args=[_, ast.Constant(value=str()), *_]
            ):
                found.add(id(func))
            case _:
                continue
    return found


def _note(node: ast.AST, seen: _Seen) -> None:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            seen.mentions.add(name)
        case ast.Constant(value=str(text)) if NAME_LIKE.fullmatch(text):
            seen.mentions.update(re.split(r"[.:]", text))
        case ast.Import(names=names):
            for alias in names:
                seen.imports.append((0, alias.name, ()))
                seen.mentions.update(alias.name.split("."))
        case ast.ImportFrom(module=module, names=names, level=level):
            listed = tuple(alias.name for alias in names if alias.name != "*")
            seen.imports.append((level, module or "", listed))
            seen.mentions.update([*(module or "").split("."), *listed])
        case ast.Call(func=func, args=[first, *_]) if _called(func) in _IMPORTERS:
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                level = len(first.value) - len(first.value.lstrip("."))
                seen.imports.append((level, first.value[level:], ()))
            else:
                seen.dynamic = True
        case ast.Call(func=func) if _called(func) in _IMPORTERS:
            seen.dynamic = True
        case _:
            return


_IMPORTERS: Final = frozenset(("import_module", "__import__"))


def _called(func: ast.expr) -> str:
    match func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def _falaj_names(tree: ast.Module) -> dict[str, str]:
    """Local names of falaj's decorators: name -> `step`, `pipeline`, or `falaj` for the module."""
    found: dict[str, str] = {}
    for statement in tree.body:
        match statement:
            case ast.ImportFrom(module="falaj" | "falaj.pipelines.declare", level=0, names=aliases):
                for alias in aliases:
                    if alias.name in {"step", "pipeline"}:
                        found[alias.asname or alias.name] = alias.name
            case ast.Import(names=aliases):
                for alias in aliases:
                    if alias.name == "falaj":
                        found[alias.asname or "falaj"] = "falaj"
            case _:
                continue
    return found


def _bindings(tree: ast.Module) -> dict[str, int]:
    """How often each name is bound anywhere in the file; a step bound twice is never left out."""
    count: dict[str, int] = {}

    def bind(name: str) -> None:
        count[name] = count.get(name, 0) + 1

    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                bind(name)
            case ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                bind(name)
            case ast.alias(name=name, asname=asname):
                bind(asname or name.split(".", 1)[0])
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                for name in names:
                    bind(name)
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                bind(name)
            case _:
                continue
    return count


def _is_step(statement: ast.stmt, names: dict[str, str], bound: dict[str, int]) -> bool:
    if not isinstance(statement, ast.FunctionDef) or len(statement.decorator_list) != 1:
        return False
    decorator = statement.decorator_list[0]
    if isinstance(decorator, ast.Call):
        decorator = decorator.func
    match decorator:
        case ast.Name(id=name):
            word, known = name, names.get(name) in {"step", "pipeline"}
        case ast.Attribute(value=ast.Name(id=name), attr="step" | "pipeline"):
            word, known = name, names.get(name) == "falaj"
        case _:
            return False
    return known and bound.get(word) == 1 and bound.get(statement.name) == 1


def _is_main_block(statement: ast.stmt) -> bool:
    match statement:
        case ast.If(
            test=ast.Compare(
                left=ast.Name(id="__name__"),
                ops=[ast.Eq()],
                comparators=[ast.Constant(value="__main__")],
            ),
            orelse=[],
        ):
            return True
        case _:
            return False


def _is_all(statement: ast.stmt) -> bool:
    match statement:
        case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List() | ast.Tuple()):
            return True
        case _:
            return False


def _label(statement: ast.stmt) -> str:
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return f"function {name}"
        case ast.ClassDef(name=name):
            return f"class {name}"
        case ast.Assign(targets=[ast.Name(id=name), *_]):
            return f"name {name}"
        case ast.AnnAssign(target=ast.Name(id=name)):
            return f"name {name}"
        case ast.Import() | ast.ImportFrom():
            return "imports"
        case _:
            return "a statement"


def _labelled(pieces: Sequence[Piece]) -> dict[str, str]:
    found: dict[str, str] = {}
    for piece in pieces:
        held = found.get(piece.label)
        found[piece.label] = piece.digest if held is None else _join([held, piece.digest])
    return found


def _join(hexes: Any) -> str:
    return hashlib.sha256("".join(hexes).encode()).hexdigest()


def _bytes_digest(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def is_inside(file: str, roots: Sequence[str]) -> bool:
    """Whether a real path lies below a root and is neither installed nor Python's own."""
    if any(part in file for part in INSTALLED) or file.startswith(LIBRARY):
        return False
    return any(file.startswith(root) for root in roots)


def _real(path: str | Path) -> str:
    return os.path.realpath(path)


# -- the memo ------------------------------------------------------------------------------------


def _packed(source: Source) -> Any:
    return [_packed_piece(piece) for piece in source.pieces]


def _packed_piece(piece: Piece) -> Any:
    header = None if piece.header is None else _packed_piece(piece.header)
    return [
        piece.label,
        piece.digest,
        sorted(piece.mentions),
        [[level, module, list(names)] for level, module, names in piece.imports],
        piece.reflects,
        piece.dynamic,
        piece.name,
        header,
    ]


def _unpacked(kept: Any) -> Source:
    return Source(tuple(_unpacked_piece(piece) for piece in kept))


def _unpacked_piece(kept: Any) -> Piece:
    label, digest, mentions, imports, reflects, dynamic, name, header = kept
    return Piece(
        label=label,
        digest=digest,
        mentions=frozenset(mentions),
        imports=tuple((level, module, tuple(names)) for level, module, names in imports),
        reflects=reflects,
        dynamic=dynamic,
        name=name,
        header=None if header is None else _unpacked_piece(header),
    )
