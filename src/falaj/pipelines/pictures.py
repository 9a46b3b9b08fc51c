"""`Picture`: what a step draws, kept as bytes, shown on the run's page and in notebooks."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import Any, Final

from falaj.base.errors import FalajError
from falaj.base.paths import trouble
from falaj.facts.runs import Artifact
from falaj.pipelines.context import RUNNING
from falaj.ports.blobs import Blobs
from falaj.ports.codecs import BadValue

__all__ = ["MOST", "Picture", "PictureCodec", "keep"]

MOST: Final = 16 * 1024 * 1024  # bytes of one picture or kept file
PNG: Final = b"\x89PNG\r\n\x1a\n"


class Picture:
    """PNG or SVG, told apart by content.

    Args:
        data: the bytes.
        title: shown above it, and read out in its place.

    Raises BadValue: neither of the two, or larger than 16 MiB.
    """

    def __init__(self, data: bytes, title: str = "") -> None:
        self.data, self.title = bytes(data), title
        if self.data.startswith(PNG):
            self.media = "image/png"
        elif b"<svg" in self.data[:1000]:
            self.media = "image/svg+xml"
        else:
            raise BadValue("a picture is PNG or SVG; these bytes are neither")
        if len(self.data) > MOST:
            raise BadValue(f"the picture has {len(self.data):,} bytes, at most {MOST:,} are kept")

    @classmethod
    def of(cls, figure: Any, title: str = "") -> Picture:
        """From a figure that can `savefig`, such as Matplotlib's. Raises BadValue."""
        if not hasattr(figure, "savefig"):
            raise BadValue(f"got {type(figure).__name__}, expected a figure with savefig")
        target = io.BytesIO()
        # Without the date that Matplotlib writes, equal figures are equal bytes.
        figure.savefig(target, format="svg", metadata={"Date": None})
        return cls(target.getvalue(), title)

    @property
    def suffix(self) -> str:
        return "png" if self.media == "image/png" else "svg"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and (self.data, self.title) == (other.data, other.title)

    def __hash__(self) -> int:
        return hash((self.data, self.title))

    def _repr_html_(self) -> str:
        """As an image, so that a script inside an SVG never runs."""
        text = base64.b64encode(self.data).decode()
        return f'<img alt="{escape(self.title)}" src="data:{self.media};base64,{text}">'


class PictureCodec:
    """Pictures as they are; a title lies beside."""

    def takes(self, kind: Any) -> bool:
        return kind is Picture

    def write(self, value: Any, kind: Any, name: str, blobs: Blobs) -> Artifact:  # noqa: ARG002 the port's form
        if not isinstance(value, Picture):
            raise BadValue(f"got {type(value).__name__}, expected falaj.Picture")
        digest = blobs.put(value.data)
        files = {f"{name}.{value.suffix}": digest}
        if value.title:
            files["title.txt"] = blobs.put(value.title.encode())
        size = len(value.data)
        return Artifact(name=name, kind="picture", digest=digest, files=files, size=size)

    def read(self, artifact: Artifact, kind: Any, blobs: Blobs) -> Picture:  # noqa: ARG002 the port's form
        title = artifact.files.get("title.txt")
        return Picture(blobs.get(artifact.digest), blobs.get(title).decode() if title else "")


def keep(name: str, file: Picture | bytes | str | Path, /) -> None:
    """Keep a file with the run: `falaj.keep("report.html", text)`.

    Args:
        name: relative, such as `plots/roc.png`; a second one of the same name takes its place.
        file: a Picture, bytes, text, or the path of a file. PNG and SVG are shown on the run's page.

    Outside a run it is checked and not kept. Raises FalajError for a name that leaves its folder,
    or more than 16 MiB.
    """
    if words := trouble(name):
        raise FalajError(
            "pipelines.file-name",
            f"kept file: the name {name!r} {words}",
            fix="give a relative name such as plots/roc.png",
        )
    match file:
        case Picture():
            data = file.data
        case Path():
            data = file.read_bytes()
        case str():
            data = file.encode()
        case _:
            data = bytes(file)
    if len(data) > MOST:
        raise FalajError(
            "pipelines.file-large",
            f"kept file {name!r} has {len(data):,} bytes, at most {MOST:,} are kept beside an answer",
            fix="return it from the step as bytes or a Path: answers may be of any size",
        )
    running = RUNNING.get()
    if running is not None:
        running.files[name] = data
