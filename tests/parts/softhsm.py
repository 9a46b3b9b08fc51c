"""A token of SoftHSM for one process of tests: made once, each test takes a prefix of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import parts

__all__ = ["MODULES", "PIN", "TOKEN", "module", "token"]

TOKEN, PIN = "falaj", "271828"
MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)


def module():
    """The library's path; a counted skip where it, or the client package, is absent."""
    parts.need("softhsm")
    found = [path for path in MODULES if Path(path).exists()]
    if not found or shutil.which("softhsm2-util") is None:
        parts.absent("softhsm", "softhsm2 is not installed (apt-get install softhsm2)")
    return found[0]


@cache
def token():
    """Module, label and PIN of a token that lives as long as this process."""
    path = module()
    # The library reads its settings once a process, when it is loaded.
    folder = Path(tempfile.mkdtemp(prefix="falaj-softhsm-"))
    (folder / "tokens").mkdir()
    settings = folder / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
    os.environ["SOFTHSM2_CONF"] = str(settings)
    words = ("softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--pin", PIN)
    subprocess.run([*words, "--so-pin", "314159"], check=True, capture_output=True)
    return path, TOKEN, PIN
