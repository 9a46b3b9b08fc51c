"""Parts that tests of several floors share lie in tests/parts and are found by their plain name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "parts"))
