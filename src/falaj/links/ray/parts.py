"""Parts of a batch job as tasks of a Ray cluster. What goes out and comes back is JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from falaj.base.errors import FalajError, Problem
from falaj.facts.scoring import PartManifest
from falaj.links.ray.executor import _Cluster
from falaj.links.ray.task import once

__all__ = ["RayTasks"]

TRIES: Final = 3  # a part is the same however often it is made


class RayTasks:
    """address, token_file: of a cluster that is there already. entry: `module:function` of a node.

    Every node has to see the release, the input and the output under the paths of this machine.
    """

    def __init__(self, *, address: str, token_file: Path, entry: str) -> None:
        self._address, self._token_file, self._entry = address, token_file, entry

    def run(self, orders: Iterable[Any]) -> Iterator[PartManifest]:
        """As many at once as the cluster has cores. Raises FalajError."""
        _Cluster.enter(self._address, self._token_file)
        import ray

        try:
            task = ray.remote(num_cpus=1, max_retries=TRIES)(once)
            free = max(int(sum(node["Resources"].get("CPU", 0) for node in _Cluster.nodes())), 1)
            waiting = iter(orders)
            running: dict[Any, None] = {}
            for order in waiting:
                running[task.remote(self._entry, msgspec.json.encode(order).decode())] = None
                if len(running) >= free:
                    yield self._next(running)
            while running:
                yield self._next(running)
        finally:
            _Cluster.leave()

    def _next(self, running: dict[Any, None]) -> PartManifest:
        import ray

        ready, _ = ray.wait(list(running), num_returns=1)
        del running[ready[0]]
        try:
            answer = msgspec.json.decode(ray.get(ready[0]))
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise FalajError(
                "score.node",
                "a part could not be made on the cluster",
                why=lines[-1][:300],
                fix="look at the node; what is done is kept: run it again",
            ) from None
        if "problems" in answer:
            problems = tuple(
                Problem(code=p["code"], message=p["message"], why=p["why"], fix=p["fix"])
                for p in answer["problems"]
            )
            raise FalajError.of(problems)
        return msgspec.convert(answer["part"], PartManifest)
