"""What runs inside the sandbox: `python -m falaj.serving.runtimes.child KIND`, in the model's folder.

python: `model.py` has `predict(inputs)`, or `load(folder)` and `predict(model, inputs)`. `inputs` are
arrays by name; the answer is one array, several in the order of the schema, or a dict by name.
torch: `model.py` has `module()`, whose weights are `weights.safetensors` or `weights.pt`.
pyfunc: `model.py` is code of MLflow that calls `mlflow.models.set_model`; `artifacts/` lies beside it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from falaj.serving.runtimes import pipe

__all__ = ["main"]

Answer = Callable[[dict[str, Any]], Any]
CODE: Final = "model.py"


def main(kind: str, folder: Path) -> None:
    question, answers = os.dup(0), os.dup(1)
    # What the model's code prints is no answer, and must never fill a disk.
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 0)
    os.dup2(2, 1)
    answer = {"python": of_python, "torch": of_torch, "pyfunc": of_pyfunc}[kind](folder)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    tell(answers, pipe.pack(pipe.HELLO, {}, 0))
    while True:
        length, asked, _, tensors, rows = pipe.HEAD.unpack(read(question, pipe.HEAD.size))
        data = read(question, length - (pipe.HEAD.size - 4))
        try:
            if asked != pipe.RUN:
                raise pipe.Malformed(f"kind {asked}")
            tell(answers, pipe.pack(pipe.ANSWER, arrays(answer(pipe.unpack(tensors, data))), rows))
        except Exception as error:  # whatever the model's code raises is an answer, too
            tell(answers, [pipe.said(f"{type(error).__name__}: {error}")])


def read(handle: int, size: int) -> memoryview:
    whole = bytearray(size)
    view, at = memoryview(whole), 0
    while at < size:
        got = os.readv(handle, [view[at:]])
        if not got:
            os._exit(0)  # nobody asks any more
        at += got
    return view


def tell(handle: int, pieces: list[bytes | memoryview]) -> None:
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(handle, rest) :]


def arrays(found: Any) -> dict[str, Any]:
    """By name; by place when several come without names; one alone has no name."""
    if isinstance(found, Mapping):
        return {str(name): value_of(value) for name, value in found.items()}
    if isinstance(found, tuple):
        return {str(at): value_of(value) for at, value in enumerate(found)}
    return {"": value_of(found)}


def value_of(found: Any) -> Any:
    for change in ("to_numpy", "numpy"):  # frames, series, tensors
        if hasattr(found, change):
            return np.asarray(getattr(found, change)())
    return np.asarray(found)


def module_of(folder: Path) -> Any:
    from importlib.util import module_from_spec, spec_from_file_location

    sys.path.insert(0, str(folder))
    spec = spec_from_file_location("model", folder / CODE)
    assert spec is not None  # noqa: S101 the file is there; told to mypy
    assert spec.loader is not None  # noqa: S101
    module = module_from_spec(spec)
    sys.modules["model"] = module
    spec.loader.exec_module(module)
    return module


def of_python(folder: Path) -> Answer:
    module = module_of(folder)
    predict = module.predict
    if hasattr(module, "load"):
        model = module.load(folder)
        return lambda inputs: predict(model, inputs)
    found: Answer = predict
    return found


def of_torch(folder: Path) -> Answer:
    import torch

    torch.set_num_threads(1)
    safe = folder / "weights.safetensors"
    if safe.is_file():
        from safetensors.torch import load_file

        weights = load_file(safe)
    else:
        weights = torch.load(folder / "weights.pt", map_location="cpu", weights_only=True)
    model = module_of(folder).module()
    model.load_state_dict(weights, strict=True)
    model.eval()

    def answer(inputs: dict[str, Any]) -> Any:
        with torch.inference_mode():
            given = {name: torch.from_numpy(np.array(array)) for name, array in inputs.items()}
            found = model(*given.values())
            if isinstance(found, Mapping):
                return {name: value.numpy() for name, value in found.items()}
            if isinstance(found, tuple):
                return tuple(value.numpy() for value in found)
            return found.numpy()

    return answer


def of_pyfunc(folder: Path) -> Answer:
    """A model folder of MLflow around the code, written here: the release's has no MLmodel."""
    import json
    import tempfile

    import mlflow.pyfunc

    home = Path(tempfile.mkdtemp())
    (home / CODE).write_bytes((folder / CODE).read_bytes())
    artifacts = folder / "artifacts"
    named = {
        path.stem: {"path": f"artifacts/{path.name}", "uri": path.as_uri()}
        for path in (sorted(artifacts.iterdir()) if artifacts.is_dir() else ())
    }
    if named:
        (home / "artifacts").symlink_to(artifacts)
    flavor = {
        "loader_module": "mlflow.pyfunc.model",
        "model_code_path": CODE,
        "python_version": ".".join(map(str, sys.version_info[:3])),
        "artifacts": named,
    }
    said = {"flavors": {"python_function": flavor}, "mlflow_version": mlflow.__version__}
    (home / "MLmodel").write_text(json.dumps(said))
    model = mlflow.pyfunc.load_model(str(home))

    def answer(inputs: dict[str, Any]) -> Any:
        return model.predict(next(iter(inputs.values())) if len(inputs) == 1 else inputs)

    return answer


if __name__ == "__main__":
    main(sys.argv[1], Path.cwd())
