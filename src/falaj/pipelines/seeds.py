"""One seed for every source of chance of a step, whether it is loaded already or only by the step."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

__all__ = ["seeded"]

NUMPY: Final = "numpy.random"
TORCH: Final = "torch"


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed random, numpy.random and torch. The states of what was loaded before come back after.

    What is not loaded is not loaded for it: importing numpy costs more than most steps do.
    """
    seeds: dict[str, Callable[[Any], object]] = {
        NUMPY: lambda module: module.seed(seed % 2**32),
        TORCH: lambda module: module.manual_seed(seed % 2**63),
    }
    plain, numpy = random.getstate(), sys.modules.get(NUMPY)
    wide = numpy.get_state() if numpy else None
    random.seed(seed)
    for name, module in seeds.items():
        if name in sys.modules:
            module(sys.modules[name])
    late = _Late({name: seed for name, seed in seeds.items() if name not in sys.modules})
    sys.meta_path.insert(0, late)
    try:
        yield
    finally:
        sys.meta_path.remove(late)
        random.setstate(plain)
        if numpy and wide:
            numpy.set_state(wide)
        elif NUMPY in sys.modules:
            sys.modules[NUMPY].seed()  # nobody's state was there: back to chance


class _Late(MetaPathFinder):
    """Seeds modules at the moment in which they are imported."""

    def __init__(self, seeds: Mapping[str, Callable[[Any], object]]) -> None:
        self._seeds = seeds

    def find_spec(
        self, fullname: str, path: Any = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        seed = self._seeds.get(fullname)
        spec = PathFinder.find_spec(fullname, path, target) if seed else None
        if seed is None or spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            seed(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
