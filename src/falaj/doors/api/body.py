"""Request bodies: whatever is no JSON is the caller's mistake, never ours."""

from __future__ import annotations

from typing import Any

from litestar.connection import Request
from litestar.exceptions import ClientException

__all__ = ["StrictRequest"]


class StrictRequest(Request[Any, Any, Any]):
    """The framework lets these two out of its decoder as they are, and they would answer 500."""

    async def json(self) -> Any:
        try:
            return await super().json()
        except UnicodeDecodeError:
            raise ClientException("the body is not UTF-8") from None
        except RecursionError:
            raise ClientException("the body is nested too deep") from None
