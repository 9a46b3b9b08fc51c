"""The port Converter over skops and skl2onnx, in a process of its own with an end."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from falaj.base.errors import FalajError
from falaj.ports.mirrors import Converted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["SkopsConverter"]

NEEDED: Final = ("skops", "sklearn", "skl2onnx")
AS_ONNX: Final = "convert it where it was trained, and log it with mlflow.onnx.log_model"
REASONS: Final = {
    "shape": ("imports.model-shape", "the model does not fit"),
    "convert": ("imports.not-convertible", "the model cannot be converted to ONNX"),
}


class SkopsConverter:
    """timeout_s: after that the process is ended, and the model is refused."""

    def __init__(self, *, timeout_s: float = 300.0) -> None:
        self._timeout_s = timeout_s

    def convert(
        self, file: Path, rows: NDArray[np.float32], columns: Sequence[str], trust: Sequence[str]
    ) -> Converted:
        import numpy as np

        absent = [name for name in NEEDED if importlib.util.find_spec(name) is None]
        if absent:
            raise FalajError(
                "imports.extra-missing",
                f"a scikit-learn model needs {', '.join(absent)}, which is not installed",
                fix="pip install 'falaj[skops]'",
            )
        with TemporaryDirectory() as scratch:
            folder = Path(scratch)
            shutil.copyfile(file, folder / "model.skops")
            np.save(folder / "rows.npy", rows, allow_pickle=False)
            asked = {"columns": list(columns), "trust": list(trust)}
            (folder / "request.json").write_text(json.dumps(asked))
            self._run(folder)
            answer = json.loads((folder / "answer.json").read_text())
            if answer["kind"] == "ok":
                return Converted(
                    onnx=(folder / "model.onnx").read_bytes(),
                    scores=np.load(folder / "scores.npy", allow_pickle=False),
                    about=answer["words"],
                )
        if answer["kind"] == "untrusted":
            raise FalajError(
                "imports.untrusted-type",
                f"the model holds types that nobody has trusted: {answer['words']}",
                why="loading it would run code of these types",
                fix="when you know them: --trust TYPE, once for each",
            )
        code, words = REASONS[answer["kind"]]
        raise FalajError(code, f"{words}: {answer['words']}", fix=AS_ONNX)

    def _run(self, folder: Path) -> None:
        """A process that knows no address and no secret of ours."""
        kept = {
            k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TMPDIR", "PYTHONPATH")
        }
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "falaj.links.skops.child", str(folder)],
                env=kept | {"HOME": str(folder), "OPENBLAS_NUM_THREADS": "1"},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise FalajError(
                "imports.not-convertible",
                f"the conversion took more than {self._timeout_s:.0f} s",
                fix=AS_ONNX,
            ) from None
        if done.returncode != 0 or not (folder / "answer.json").is_file():
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            last = "".join(c if c.isprintable() else " " for c in (lines or ["it ended"])[-1])
            raise FalajError(
                "imports.not-convertible",
                "the model cannot be loaded and converted to ONNX",
                why=last[:300],
                fix=AS_ONNX,
            )
