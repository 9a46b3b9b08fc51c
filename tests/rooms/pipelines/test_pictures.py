"""Pictures and kept files: what is taken, what is refused, and that nothing in them runs."""

from __future__ import annotations

import pytest

from falaj.base.errors import FalajError
from falaj.pipelines.context import RUNNING, Running
from falaj.pipelines.pictures import MOST, PNG, Picture, keep
from falaj.ports.codecs import BadValue


@pytest.fixture
def running():
    step = Running("draw", 1)
    token = RUNNING.set(step)
    yield step
    RUNNING.reset(token)


def test_a_picture_is_told_by_its_bytes():
    assert Picture(PNG + b"..").media == "image/png"
    assert Picture(b'<?xml version="1.0"?><svg/>').suffix == "svg"
    for bytes_of_something_else in (b"", b"GIF89a", b"<html><script>"):
        with pytest.raises(BadValue, match="PNG or SVG"):
            Picture(bytes_of_something_else)


def test_a_notebook_shows_it_as_an_image_whose_script_does_not_run():
    shown = Picture(b"<svg><script>alert(1)</script></svg>", 'a "title"')._repr_html_()
    assert "<script" not in shown
    assert 'alt="a &quot;title&quot;"' in shown


class Figure:
    """What Matplotlib's figures promise."""

    def savefig(self, target, *, format, metadata):
        assert metadata == {"Date": None}
        target.write(f"<{format}/>".encode())


def test_a_figure_becomes_a_picture():
    assert Picture.of(Figure(), "roc") == Picture(b"<svg/>", "roc")
    with pytest.raises(BadValue, match="expected a figure"):
        Picture.of(object())


def test_files_are_kept_with_the_step(running, tmp_path):
    (tmp_path / "t.txt").write_text("there")
    keep("plots/a.svg", Picture(b"<svg/>"))
    keep("a.txt", "text")
    keep("a.txt", "later")
    keep("b.bin", b"\x00")
    keep("t.txt", tmp_path / "t.txt")
    assert running.files == {
        "plots/a.svg": b"<svg/>", "a.txt": b"later", "b.bin": b"\x00", "t.txt": b"there",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../out", "a//b", "a/./b", "a\\b", "c:x", "nul"]
)
def test_names_that_leave_the_folder_are_refused(running, name):
    with pytest.raises(FalajError) as caught:
        keep(name, "x")
    assert caught.value.code == "pipelines.file-name"
    assert running.files == {}


def test_a_file_that_is_too_large_is_refused_and_outside_a_run_nothing_is_kept():
    with pytest.raises(FalajError, match="at most"):
        keep("large", bytes(MOST + 1))
    keep("small", "x")
