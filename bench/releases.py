"""What it costs to sign, verify and seal 1 GB: against hashing alone, a plain copy, and model_signing."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from bench.harness import QUIET, ROOT, Cost, compared, median, once, ours, peer, say, version, write

MB = 1 << 20
FILES = 64
NOTES = """
One release whose model is 64 files, 1 GB together (`--quick`: 128 MB); all read from the page cache, each
in a process of its own, round after round; medians. `hashing alone` is the faster one of `sha256sum` and
`hashlib` over the same files. `verify and copy` hashes every file while it is copied into a private folder
and judges that copy: what comes before a model is loaded. Ours hashes in as many threads as there are
cores, at most 4. Seconds of wall time follow the load of the machine, seconds of CPU do not. Sealing is of
one file of that size, against a copy of it in Python, both without what an empty file costs.
"""


def main(*, quick: bool) -> int:
    load = os.getloadavg()[0]
    here, theirs = ours(), peer("modelsigning")
    size = (128 if quick else 1024) * MB
    with tempfile.TemporaryDirectory(prefix="falaj-bench-") as scratch:
        base = Path(scratch)
        source, release, file = base / "files", base / "release", base / "one.bin"
        source.mkdir()
        for number in range(FILES):
            (source / f"part-{number:02d}.bin").write_bytes(os.urandom(size // FILES))
        with file.open("wb") as target:
            for _ in range(size // MB):
                target.write(os.urandom(MB))
        env = {**QUIET, "HOME": scratch, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}

        def case(name: str, folder: Path, out: Path) -> list[str | Path]:
            return [here / "python", "-m", "bench.releases_cases", name, folder, out]

        once(case("make", source, release), at=base, env=env)
        shutil.rmtree(source)
        once(case("sign", release, release), at=base, env=env)
        names = sorted(path for path in release.rglob("*") if path.is_file())
        outer, out, sealed = base / "model.sig", base / "out", base / "one.fenc"
        once(case("seal", file, sealed), at=base, env=env)
        signing = [theirs / "python", "-m", "model_signing"]
        ignored = ["--ignore-paths", release / "signature.json"]
        empty, blank = base / "empty.bin", base / "empty.fenc"
        empty.touch()
        once(case("seal", empty, blank), at=base, env=env)
        cases: dict[str, list[str | Path]] = {
            "sha256sum": ["sha256sum", *names],
            "hashlib": case("hashes", release, out),
            "verify": case("look", release, out),
            "verify and copy": case("load", release, out),
            "sign": case("sign", release, release),
            "model_signing sign": [
                *signing, "sign", "key", release, "--signature", outer,
                "--private_key", base / "private.pem", *ignored,
            ],
            "model_signing verify": [
                *signing, "verify", "key", release, "--signature", outer,
                "--public_key", base / "public.pem", *ignored,
            ],
            "copy": case("copy", file, out),
            "seal": case("seal", file, out),
            "unseal": case("unseal", sealed, out),
            "copy nothing": case("copy", empty, out),
            "seal nothing": case("seal", empty, out),
            "unseal nothing": case("unseal", blank, out),
        }  # fmt: skip
        seen: dict[str, list[Cost]] = {name: [] for name in cases}
        rounds = 3 if quick else 7
        for number in range(rounds + 1):
            for name, command in cases.items():
                cost = once(command, at=base, env=env)
                shutil.rmtree(out, ignore_errors=True)
                out.unlink(missing_ok=True)
                if number:  # the first round warms caches and writes bytecode
                    seen[name].append(cost)
            say(f"round {number + 1} of {rounds + 1}")
    costs = {name: median(found) for name, found in seen.items()}
    wall = {name: cost.wall_s for name, cost in costs.items()}
    cpu = {name: cost.cpu_s for name, cost in costs.items()}
    alone = min(("sha256sum", "hashlib"), key=lambda name: wall[name])
    said = f"hashing alone ({alone})"
    rows = [
        compared(f"{name}, wall", wall[name], wall[alone], said, unit="s", target=1.3)
        for name in ("verify", "verify and copy")
    ]
    rows += [
        compared(f"{name}, CPU", cpu[name], cpu[alone], said, unit="s")
        for name in ("verify", "verify and copy")
    ]
    rows += [
        compared(f"{mine}, {what}", of[mine], of[other], other, unit="s", target=1.0)
        for mine, other in (
            ("sign", "model_signing sign"),
            ("verify and copy", "model_signing verify"),
        )
        for what, of in (("wall", wall), ("CPU", cpu))
    ]
    work = {name: cpu[name] - cpu[f"{name} nothing"] for name in ("copy", "seal", "unseal")}
    rows += [
        compared(f"{name}, CPU", work[name], work["copy"], "a plain copy", unit="s", target=1.5)
        for name in ("seal", "unseal")
    ]
    rss = {name: cost.rss_mb for name, cost in costs.items()}
    rows.append(
        compared("verify and copy, memory", rss["verify and copy"], rss["model_signing verify"],
                 "model_signing verify", unit="MB", target=1.0)
    )  # fmt: skip
    versions = {
        "cryptography": version(here / "python", "cryptography"),
        "model-signing": version(theirs / "python", "model-signing"),
    }
    return write("releases", rows, versions=versions, load=load, notes=NOTES)
