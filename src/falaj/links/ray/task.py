"""What runs on a node of the cluster: one fixed function. Ray carries its name, never its code."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator

__all__ = ["attempt", "once"]


def attempt(entry: str, text: str) -> Iterator[str]:
    """Say which node has begun, then all that `entry` says: a `module:function` of text to texts."""
    import ray

    context = ray.get_runtime_context()
    yield json.dumps({"node": context.get_node_id(), "at": ray.util.get_node_ip_address()})
    module, _, name = entry.partition(":")
    yield from getattr(importlib.import_module(module), name)(text)


def once(entry: str, text: str) -> str:
    """Text in, text out: one part of something that may be made anywhere."""
    module, _, name = entry.partition(":")
    found: str = getattr(importlib.import_module(module), name)(text)
    return found
