"""The rules of pickles: who may be named in one. A pickle that keeps them is still never released.

An inert unpickler walks the real machine, memo and all: it looks each name up in an exact list and
puts stubs on the stack, so nothing is imported and nothing is called. A second pass over
`pickletools.genops` has to see the very same names; two readers that disagree are a refusal.
Simulating the stack over genops alone is unsound: MEMOIZE stores at the length of the memo, and a
file that mixes it with BINPUT shows one name and loads another.
"""

from __future__ import annotations

import bz2
import io
import lzma
import pickle
import pickletools
import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, NamedTuple, Self

import numpy as np

from falaj.evaluation.formats.verdict import MOST_RATIO, MOST_UNPACKED, Refused

__all__ = ["Examined", "Stub", "begins", "examine", "unpacked"]

Names = Mapping[str, frozenset[str]]
Persistent = Callable[[Any], Any]
MOST_OPS: Final = 4_000_000
MOST_DEPTH: Final = 8  # pickles inside a pickle, as joblib writes arrays of objects
WRAPPER: Final = ("joblib.numpy_pickle", "NumpyArrayWrapper")
# Texts as numpy names dtypes of one size; O is an object.
DTYPE: Final = re.compile(r"[biufcSUVmM]\d{1,9}")
STRINGS: Final = frozenset(
    {"SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE", "STRING"}
    | {"BINSTRING", "SHORT_BINSTRING"}
)
PUTS: Final = frozenset({"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"})
GETS: Final = frozenset({"GET", "BINGET", "LONG_BINGET"})


class Examined(NamedTuple):
    """names: every one that was looked up, in order. pickles: how many stand behind each other.

    arrays: how many lie between the operations, as joblib writes them. operations: the pickles
    without them.
    """

    names: tuple[tuple[str, str], ...]
    pickles: int
    arrays: int
    values: tuple[Any, ...]
    operations: bytes


class Stub:
    """Stands for a class: takes everything, does nothing."""

    __slots__ = ("args", "state")
    args: tuple[Any, ...]
    state: Any
    module: str = ""
    name: str = ""

    def __new__(cls, *args: Any, **_: Any) -> Self:
        made = super().__new__(cls)
        made.args, made.state = args, None
        return made

    def __init__(self, *args: Any, **more: Any) -> None:
        """Both are kept by __new__ already."""

    def append(self, _: Any) -> None:
        """As a list would."""

    def extend(self, _: Any) -> None:
        """As a list would."""

    def add(self, _: Any) -> None:
        """As a set would."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """As a table would."""


def begins(data: bytes) -> bool:
    """Whether the first bytes read like a pickle of protocol 1 to 5, or of one of the oldest."""
    if data[:1] == b"\x80" and len(data) > 1 and data[1] <= 5:
        return True
    return bool(re.match(rb"[(\]}cilS][^\0]{0,200}\n|[\]}(][q\x94]", data)) and data[-1:] == b"."


def unpacked(data: bytes) -> bytes:
    """Without the compression that joblib may lay around a pickle. Bounded; raises Refused."""
    try:
        if data[:2] in (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"):
            return pumped(zlib.decompressobj(), data)
        if data[:2] == b"\x1f\x8b":
            return pumped(zlib.decompressobj(31), data)
        if data[:3] == b"BZh":
            return pumped(bz2.BZ2Decompressor(), data)
        if data[:6] == b"\xfd7zXZ\0" or data[:3] == b"\x5d\0\0":
            return pumped(lzma.LZMADecompressor(memlimit=256 << 20), data)
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError) as error:
        raise Refused(f"compressed data that is damaged: {error}") from None
    return data


def pumped(pump: Any, data: bytes) -> bytes:
    most = min(MOST_UNPACKED, max(64 << 20, MOST_RATIO * len(data)))
    found = pump.decompress(data, most)
    if not pump.eof:
        raise Refused("compressed data that is cut off or grows too large")
    if pump.unused_data:
        raise Refused("compressed data with bytes behind its end")
    return bytes(found)


def examine(
    data: bytes, allowed: Names, *, persistent: Persistent | None = None, arrays: bool = False
) -> Examined:
    """Read all pickles of a file. arrays: numbers may lie between, as joblib writes them.

    Raises Refused, naming what is not on the list; whatever else breaks in it is the caller's to
    take as a refusal.
    """
    tape = Tape(data)
    values = []
    while tape.file.tell() < len(data):
        walker = Inert(tape, allowed, persistent, arrays=arrays, depth=0)
        values.append(walker.load())
    if not values:
        raise Refused("an empty pickle")
    return Examined(
        tuple(tape.names), len(values), tape.arrays, tuple(values), b"".join(tape.operations)
    )


class Tape:
    """One file that several unpicklers read, one behind or inside the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.file = io.BytesIO(data)
        self.names: list[tuple[str, str]] = []
        self.operations: list[bytes] = []
        self.arrays = 0
        self.left = MOST_OPS


class Inert(pickle._Unpickler):  # noqa: SLF001 the one in Python
    """Walks a pickle on stubs. What stubs do not stand for is refused."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # noqa: SLF001

    def __init__(
        self, tape: Tape, allowed: Names, persistent: Persistent | None, *, arrays: bool, depth: int
    ) -> None:
        super().__init__(tape.file)
        if depth > MOST_DEPTH:
            raise Refused("pickles nested too deep")
        self.tape = tape
        self.allowed = allowed
        self.persistent = persistent
        self.with_arrays = arrays
        self.depth = depth
        self.stubs: dict[tuple[str, str], type[Stub]] = {}
        self.names: list[tuple[str, str]] = []
        self.parts: list[bytes] = []  # operations without the arrays between them
        self.begun = tape.file.tell()

    def load(self) -> Any:
        """As the parent does, counted, and with nothing left inside a frame."""
        self._unframer = pickle._Unframer(self._file_read, self._file_readline)  # type: ignore[attr-defined]  # noqa: SLF001
        self.read = self._unframer.read
        self.readinto = self._unframer.readinto
        self.readline = self._unframer.readline
        self.metastack: list[Any] = []
        self.stack: list[Any] = []
        self.append = self.stack.append
        self.proto = 0
        read, dispatch = self.read, self.dispatch
        try:
            while True:
                key = read(1)
                if not key:
                    raise Refused("a pickle that is cut off")
                self.tape.left -= 1
                if self.tape.left < 0:
                    raise Refused(f"a pickle of more than {MOST_OPS:,} operations")
                step = dispatch.get(key[0])
                if step is None:
                    raise Refused(f"a pickle with the unknown operation 0x{key[0]:02x}")
                step(self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]  # noqa: SLF001
            self.ended()
            self.cut()
            operations = b"".join(self.parts)
            agree(operations, self.names)
            self.tape.operations.append(operations)
            self.tape.names += self.names
            if self.stack or self.metastack:
                raise Refused("a pickle that leaves things on its stack") from None
            return stop.value

    def cut(self) -> None:
        here = self.tape.file.tell()
        self.parts.append(self.tape.data[self.begun : here])
        self.begun = here

    def ended(self) -> None:
        frame = self._unframer.current_frame
        if frame is not None and frame.read(1):
            raise Refused("a pickle with bytes behind its end, inside a frame")

    def find_class(self, module: str, name: str) -> Any:
        from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

        self.names.append((module, name))
        if self.proto < 3:  # what a real unpickler would make of the names of Python 2
            module, name = NAME_MAPPING.get((module, name), (module, name))
            module = IMPORT_MAPPING.get(module, module)
        if "." in name or not name.isidentifier():
            raise Refused(f"a pickle that reaches for {module}.{name}, through a dotted name")
        if name not in self.allowed.get(module, ()):
            raise Refused(f"a pickle that names {module}.{name}, which is not on the list")
        key = (module, name)
        if key not in self.stubs:
            # A name of ours alone: nothing of the file becomes an attribute.
            self.stubs[key] = type("Named", (Stub,), {"module": module, "name": name})
        return self.stubs[key]

    def persistent_load(self, pid: Any) -> Any:
        if self.persistent is None:
            raise Refused("a pickle that names things outside of it")
        return self.persistent(pid)

    def get_extension(self, code: int) -> None:
        raise Refused(f"a pickle with a code of the extension registry ({code})")

    def made(self, kind: Any, args: Any, more: Any = None) -> Stub:
        if not (isinstance(kind, type) and issubclass(kind, Stub)):
            raise Refused("a pickle that calls something that is no class of the list")
        if not isinstance(args, tuple) or not (more is None or isinstance(more, dict)):
            raise Refused("a pickle that calls with something that is no arguments")
        if (kind.module, kind.name) == ("_codecs", "encode") and args[1:] != ("latin1",):
            raise Refused("a pickle that decodes by an unusual codec")
        return kind(*args)

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(self.made(klass, tuple(args)))

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self.made(self.stack[-1], args)

    def load_newobj(self) -> None:
        args = self.stack.pop()
        self.append(self.made(self.stack.pop(), args))

    def load_newobj_ex(self) -> None:
        more = self.stack.pop()
        args = self.stack.pop()
        self.append(self.made(self.stack.pop(), args, more))

    def load_build(self) -> None:
        state = self.stack.pop()
        thing = self.stack[-1]
        if not isinstance(thing, Stub):
            raise Refused("a pickle that builds on something that is no object")
        thing.state = state
        if self.with_arrays and (thing.module, thing.name) == WRAPPER:
            self.stack[-1] = self.array(thing)

    def array(self, wrapper: Stub) -> Stub:
        """Pass over an array as joblib writes it: its bytes lie in the file, behind this place."""
        self.ended()
        self._unframer.current_frame = None
        self.cut()
        self.tape.arrays += 1
        state: Any = wrapper.state
        if not isinstance(state, dict):
            raise Refused("joblib with an array that does not say what it is")
        size = size_of(state.get("dtype"))
        file = self.tape.file
        if size is None:
            Inert(
                self.tape, self.allowed, self.persistent, arrays=True, depth=self.depth + 1
            ).load()
        else:
            shape = state.get("shape")
            if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
                raise Refused("joblib with an array without a shape")
            padding = 0
            if state.get("numpy_array_alignment_bytes") is not None:
                padding = int.from_bytes(file.read(1), "little")
            for n in shape:
                size *= n
            if file.tell() + padding + size > len(self.tape.data):
                raise Refused("joblib with an array that is cut off")
            file.seek(padding + size, io.SEEK_CUR)
        self.begun = file.tell()
        return wrapper

    def load_setitem(self) -> None:
        self.keys(self.stack[-2:-1])
        pickle._Unpickler.load_setitem(self)  # type: ignore[attr-defined]  # noqa: SLF001

    def load_setitems(self) -> None:
        self.keys(self.stack[::2])
        pickle._Unpickler.load_setitems(self)  # type: ignore[attr-defined]  # noqa: SLF001

    def load_dict(self) -> None:
        self.keys(self.stack[::2])
        pickle._Unpickler.load_dict(self)  # type: ignore[attr-defined]  # noqa: SLF001

    def load_additems(self) -> None:
        self.keys(self.stack)
        pickle._Unpickler.load_additems(self)  # type: ignore[attr-defined]  # noqa: SLF001

    def load_frozenset(self) -> None:
        self.keys(self.stack)
        pickle._Unpickler.load_frozenset(self)  # type: ignore[attr-defined]  # noqa: SLF001

    @staticmethod
    def keys(values: list[Any]) -> None:
        """Only flat keys are hashed: tuples in tuples hash for as long as their writer wishes."""
        for value in values:
            if type(value) is tuple and any(type(inner) is tuple for inner in value):
                raise Refused("a pickle with keys that are nested")
            if type(value) is frozenset:
                raise Refused("a pickle with keys that are sets")

    def load_bytearray8(self) -> None:
        here = self.tape.file.tell()
        length = int.from_bytes(self.tape.data[here : here + 8], "little")
        frame = self._unframer.current_frame
        if frame is not None:
            place = frame.tell()
            length = int.from_bytes(frame.read(8), "little")
            frame.seek(place)
        if length > len(self.tape.data):
            raise Refused("a pickle that is cut off")
        pickle._Unpickler.load_bytearray8(self)  # type: ignore[attr-defined]  # noqa: SLF001

    def outside(self) -> None:
        raise Refused("a pickle whose buffers lie outside of it")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FROZENSET[0]] = load_frozenset
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
    dispatch[pickle.NEXT_BUFFER[0]] = outside
    dispatch[pickle.READONLY_BUFFER[0]] = outside


def size_of(dtype: Any) -> int | None:
    """Bytes of one element, or None of objects."""
    if not isinstance(dtype, Stub) or (dtype.module, dtype.name) != ("numpy", "dtype"):
        raise Refused("joblib with an array of unknown numbers")
    text = dtype.args[0] if dtype.args else None
    if text == "O8":
        return None
    if not isinstance(text, str) or not DTYPE.fullmatch(text):
        raise Refused("joblib with an array of unknown numbers")
    state = dtype.state
    if text[0] == "V" and isinstance(state, tuple) and any(has_objects(part) for part in state):
        raise Refused("joblib with an array of records that hold objects")
    return int(np.dtype(text).itemsize)


def has_objects(part: Any, depth: int = 0) -> bool:
    if depth > MOST_DEPTH:
        raise Refused("joblib with records nested too deep")
    if isinstance(part, Stub):
        nested = part.state if isinstance(part.state, tuple) else ()
        return part.args[:1] == ("O8",) or any(has_objects(one, depth + 1) for one in nested)
    if isinstance(part, dict):
        return any(has_objects(one, depth + 1) for one in part.values())
    return isinstance(part, tuple) and any(has_objects(one, depth + 1) for one in part)


def agree(operations: bytes, names: list[tuple[str, str]]) -> None:
    """The second reader sees the same names, in the same order, and no other operation."""
    stream = io.BytesIO(operations)
    seen = named(stream)
    if seen != names or stream.tell() != len(operations):
        raise Refused("a pickle that two readers read in two ways")


def named(stream: io.BytesIO) -> list[tuple[str, str]]:
    """The names of one pickle. A name that is not written down right before its use is refused."""
    found: list[tuple[str, str]] = []
    memo: dict[int, str | None] = {}
    last: list[str | None] = [None, None]  # the two newest things on the stack, where they are text
    for operation, argument, _ in pickletools.genops(stream):
        kind = operation.name
        if kind in PUTS:
            memo[len(memo) if kind == "MEMOIZE" else place(argument)] = last[1]
        elif kind in GETS:
            last = [last[1], memo.get(place(argument))]
        elif kind in STRINGS:
            last = [last[1], str(argument)]
        elif kind in {"GLOBAL", "INST"}:
            module, _, name = str(argument).partition(" ")
            found.append((module, name))
            last = [None, None]
        elif kind == "STACK_GLOBAL":
            if last[0] is None or last[1] is None:
                raise Refused("a pickle with a name that is made up on the way")
            found.append((last[0], last[1]))
            last = [None, None]
        elif kind.startswith("EXT"):
            raise Refused("a pickle with a code of the extension registry")
        elif kind not in {"PROTO", "FRAME"}:
            last = [None, None]
    return found


def place(argument: Any) -> int:
    return int(argument)
