"""Which packages a lock pins: requirements files with hashes, and uv.lock.

What is asked for without a version of its own is named in `unread`, never left out in silence.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

__all__ = ["NAMES", "Lock", "Pin", "normalised", "read_lock"]

NAMES: Final = ("environment.lock", "requirements.lock", "requirements.txt", "uv.lock")
PINNED: Final = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*===?\s*(?P<version>[^\s;\\#,*]+)\s*(?=$|[;#]|--)"
)
HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
COMMENT: Final = re.compile(r"(^|\s)#.*$")
OTHERS: Final = ("-r", "--requirement", "-c", "--constraint")  # files that are not in the lock
FOLDERS: Final = ("-e", "--editable")
OWN: Final = (".", "./.", "")  # the project itself: its code is looked at as code


class Pin(NamedTuple):
    """One package: normalised name, version, SHA-256 of every file that may be installed.

    line: where it stands in the lock, from 1.
    """

    name: str
    version: str
    hashes: tuple[str, ...]
    line: int = 1


class Lock(NamedTuple):
    """pins: by name and version. unread: what is asked for without a version, for people."""

    pins: tuple[Pin, ...]
    unread: tuple[str, ...]


def normalised(name: str) -> str:
    """PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lock(lock: bytes) -> Lock:
    """Never raises: what cannot be read is named."""
    text = lock.decode(errors="replace")
    if re.search(r"^\[\[package\]\]\s*$", text, re.MULTILINE):
        return _uv(text)
    found: dict[tuple[str, str], Pin] = {}
    unread: list[str] = []
    for number, line in _joined(text):
        match = PINNED.match(line)
        if match:
            name, version = normalised(match["name"]), match["version"]
            found[name, version] = Pin(name, version, tuple(sorted(HASH.findall(line))), number)
        else:
            said = _unread(line)
            if said:
                unread.append(said)
    return Lock(tuple(found[key] for key in sorted(found)), tuple(dict.fromkeys(unread)))


def _joined(text: str) -> list[tuple[int, str]]:
    """Lines with what is continued behind a backslash, each with the number of its first one."""
    lines: list[tuple[int, str]] = []
    held, begun = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        begun = begun or number
        if line.rstrip().endswith("\\"):
            held += line.rstrip()[:-1] + " "
            continue
        whole = COMMENT.sub("", held + line).strip()
        if whole:
            lines.append((begun, whole))
        held, begun = "", 0
    if held.strip():
        lines.append((begun, COMMENT.sub("", held).strip()))
    return lines


def _unread(line: str) -> str:
    """What a line without a pin asks for. Never the line itself: an address may hold a password."""
    word, _, rest = line.partition(" ")
    option = word.partition("=")[0]
    if option in OTHERS:
        return "another file of requirements"
    if option in FOLDERS:
        path = (line[len(option) :].lstrip("= ").split(";")[0]).strip().rstrip("/")
        return "" if path in OWN else "a folder that is installed as it is (editable)"
    if word.startswith("-"):
        return ""  # an index or a switch: it installs nothing
    name = NAME.match(line)
    if line.rstrip("/") in OWN:
        return ""
    if "://" in word or name is None:
        return "an address without a name"
    if rest.lstrip().startswith("@") or word.endswith("@") or "@" in word:
        return f"{normalised(name[0])}, from an address"
    return f"{normalised(name[0])}, without one version"


def _uv(text: str) -> Lock:
    import tomllib

    try:
        packages = tomllib.loads(text).get("package", [])
    except tomllib.TOMLDecodeError:
        return Lock((), ("the whole lock: it is no TOML",))
    places = {
        match[1]: text.count("\n", 0, match.start()) + 1
        for match in re.finditer(r'^name = "([^"]+)"', text, re.MULTILINE)
    }
    pins: dict[tuple[str, str], Pin] = {}
    unread = []
    for package in packages:
        match package:
            case {"source": {"editable": _} | {"virtual": _}}:
                continue  # the project itself
            case {"name": str(name), "version": str(version)}:
                files = [package.get("sdist"), *package.get("wheels", ())]
                key = normalised(name)
                hashes = tuple(sorted(_hash(file) for file in files if _hash(file)))
                pins[key, version] = Pin(key, version, hashes, places.get(name, 1))
            case {"name": str(name)}:
                unread.append(f"{normalised(name)}, without one version")
            case _:
                unread.append("a package without a name")
    return Lock(tuple(pins[key] for key in sorted(pins)), tuple(unread))


def _hash(file: Any) -> str:
    match file:
        case {"hash": str(said)} if said.startswith("sha256:"):
            return said.removeprefix("sha256:")
        case _:
            return ""
