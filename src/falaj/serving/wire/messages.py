"""Message classes of gRPC, made at run time from the `.proto` files beside this one.

No generated code: that is bound to the version of protobuf that generated it, and two of its copies
in one process collide by file name. The pool is our own, so nothing collides with a client library.
The reader knows the part of proto3 that these files use, and refuses everything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any, Final

__all__ = ["Protos", "protos", "read_proto"]

TOKEN: Final = re.compile(r'\s+|//[^\n]*|"([^"\n]*)"|([A-Za-z_][\w.]*|\d+|[{}()<>=;,])')
SCALARS: Final = {
    "double": 1,
    "float": 2,
    "int64": 3,
    "uint64": 4,
    "int32": 5,
    "bool": 8,
    "string": 9,
    "bytes": 12,
    "uint32": 13,
}
MESSAGE, ENUM = 11, 14
OPTIONAL, REPEATED = 1, 3
FILES: Final = ("open_inference", "health", "reflection")


class Protos:
    """All message classes, by full name; and the descriptors of their files, for reflection."""

    def __init__(self) -> None:
        from google.protobuf import descriptor_pool

        self.pool = descriptor_pool.DescriptorPool()
        self.files: dict[str, bytes] = {}  # file name -> serialized descriptor
        self.services: dict[str, str] = {}  # full name -> file name
        self.classes: dict[str, Any] = {}
        for name in FILES:
            text = files("falaj.serving.wire.protos").joinpath(f"{name}.proto").read_text("utf-8")
            self.add(f"{name}.proto", text)
            if name == "reflection":
                older = text.replace("reflection.v1;", "reflection.v1alpha;", 1)
                self.add("reflection_v1alpha.proto", older)

    def add(self, name: str, text: str) -> None:
        made = read_proto(name, text)
        self.pool.Add(made)
        self.files[name] = made.SerializeToString()
        for service in made.service:
            self.services[f"{made.package}.{service.name}"] = name

    def message(self, name: str) -> Any:
        """Class of a message by its full name."""
        found = self.classes.get(name)
        if found is None:
            from google.protobuf import message_factory

            kind = self.pool.FindMessageTypeByName(name)
            found = self.classes[name] = message_factory.GetMessageClass(kind)
        return found


@cache
def protos() -> Protos:
    """The messages of this process."""
    return Protos()


def read_proto(name: str, text: str) -> Any:
    """Read one file of proto3 as a FileDescriptorProto. Raises ValueError where it cannot."""
    from google.protobuf import descriptor_pb2

    file = descriptor_pb2.FileDescriptorProto(name=name, syntax="proto3")
    words = Words(text)
    words.expect("syntax", "=", "proto3", ";")
    while (word := words.next()) != "":
        if word == "package":
            file.package = words.next()
            words.expect(";")
        elif word == "message":
            _message(words, file.message_type.add())
        elif word == "service":
            _service(words, file.service.add(), file.package)
        else:
            raise ValueError(f"{name}: got {word!r}, expected package, message or service")
    outer = {f".{file.package}": file.message_type}
    for scope, messages in list(outer.items()):
        _resolve(messages, scope, outer)
    return file


class Words:
    """The words of a file, one after another; an empty one at the end."""

    def __init__(self, text: str) -> None:
        self.rest = _words(text)

    def next(self) -> str:
        return next(self.rest, "")

    def expect(self, *words: str) -> None:
        for word in words:
            if (got := self.next()) != word:
                raise ValueError(f"got {got!r}, expected {word!r}")


def _words(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        found = TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"cannot be read: {text[at : at + 20]!r}")
        at = found.end()
        word = found[2] if found[1] is None else found[1]
        if word is not None:
            yield word


def _message(words: Words, made: Any) -> None:
    made.name = words.next()
    words.expect("{")
    while (word := words.next()) != "}":
        if word == "message":
            _message(words, made.nested_type.add())
        elif word == "enum":
            _enum(words, made.enum_type.add())
        elif word == "oneof":
            made.oneof_decl.add(name=words.next())
            words.expect("{")
            while (inner := words.next()) != "}":
                field = _field(words, made, inner, OPTIONAL)
                field.oneof_index = len(made.oneof_decl) - 1
        elif word == "repeated":
            _field(words, made, words.next(), REPEATED)
        else:
            _field(words, made, word, OPTIONAL)


def _field(words: Words, made: Any, kind: str, label: int) -> Any:
    entry = ""
    if kind == "map":
        words.expect("<", "string", ",")
        entry = words.next()
        words.expect(">")
    field = made.field.add(name=words.next(), label=label)
    words.expect("=")
    field.number = int(words.next())
    words.expect(";")
    if entry:
        # A map is a repeated message of key and value; its name is prescribed.
        nested = made.nested_type.add(
            name="".join(part.title() for part in field.name.split("_")) + "Entry"
        )
        nested.options.map_entry = True
        nested.field.add(name="key", number=1, label=OPTIONAL, type=SCALARS["string"])
        value = nested.field.add(name="value", number=2, label=OPTIONAL)
        _type(value, entry)
        field.label = REPEATED
        kind = nested.name
    _type(field, kind)
    return field


def _type(field: Any, kind: str) -> None:
    if kind in SCALARS:
        field.type = SCALARS[kind]
    else:
        field.type_name = kind  # resolved when all names are known


def _enum(words: Words, made: Any) -> None:
    made.name = words.next()
    words.expect("{")
    while (word := words.next()) != "}":
        words.expect("=")
        made.value.add(name=word, number=int(words.next()))
        words.expect(";")


def _service(words: Words, made: Any, package: str) -> None:
    made.name = words.next()
    words.expect("{")
    while words.next() == "rpc":
        method = made.method.add(name=words.next())
        method.client_streaming, method.input_type = _side(words, package)
        words.expect("returns")
        method.server_streaming, method.output_type = _side(words, package)
        words.expect(";")


def _side(words: Words, package: str) -> tuple[bool, str]:
    words.expect("(")
    word = words.next()
    streams = word == "stream"
    name = words.next() if streams else word
    words.expect(")")
    return streams, f".{package}.{name}"


def _resolve(messages: Any, scope: str, outer: dict[str, Any]) -> None:
    """Turn the names of types into full ones: the nearest scope that has it."""
    for message in messages:
        inside = f"{scope}.{message.name}"
        _resolve(message.nested_type, inside, {**outer, inside: message.nested_type})
        enums = {enum.name for enum in message.enum_type}
        for field in message.field:
            if not field.type_name:
                continue
            kind = field.type_name
            if kind in enums:
                field.type, field.type_name = ENUM, f"{inside}.{kind}"
                continue
            places = {inside: message.nested_type, **dict(reversed(outer.items()))}
            found = [at for at, known in places.items() if kind in {one.name for one in known}]
            if not found:
                raise ValueError(f"{inside}: there is no type {kind!r}")
            field.type, field.type_name = MESSAGE, f"{found[0]}.{kind}"
