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
        # Somebody's own module may be called torch.
        TORCH: lambda module: getattr(module, "manual_seed", bool)(seed % 2**63),
    }
    plain, numpy = random.getstate(), sys.modules.get(NUMPY)
    wide = numpy.get_state() if numpy else None
    random.seed(seed)
    for name, apply in seeds.items():
        if sys.modules.get(name) is not None:
            apply(sys.modules[name])
    finder = _Late(seeds)  # asked for what is not loaded yet
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        random.setstate(plain)
        if numpy and wide:
            numpy.set_state(wide)
        elif sys.modules.get(NUMPY) is not None:
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
