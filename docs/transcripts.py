"""Run the console transcripts of a page and compare, or write down what was said.

    python docs/transcripts.py README.md docs/tutorial.md     run, and write the outputs anew
    python docs/transcripts.py --demo [STORY]                 put an excerpt of the demo, run now or
                                                              told in that file, into the README

A ```console block holds commands after `$ ` and, below each, what it prints; a line `...` stands for
any lines. All blocks of a page run in order in one bash, in an empty folder. Numbers, digests, ids and
times may differ from run to run, words may not. `8080` becomes a free port.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ANY = "..."
MARK = "@@@ said @@@"
VARIES = (
    (re.compile(r"\b[0-9a-f]{12,64}\b|\b[0-9A-HJKMNP-TV-Z]{26}\b"), "#"),
    (re.compile(r"\d[\d.,:+e-]*"), "0"),
    (re.compile(r"\b0 (?:s|min|h) ago"), "0 ago"),
    (re.compile(r"worse: [a-z, ]+;"), "worse: #;"),
    (re.compile(r"\s+"), " "),
)


class Said(NamedTuple):
    """A command and what stands, or what came, below it."""

    command: str
    lines: list[str]


def blocks(page: str) -> list[list[Said]]:
    """The console blocks of a page. A command goes on after a backslash, and inside quotes."""
    found = []
    for block in BLOCK.finditer(page):
        said: list[Said] = []
        open_command = False
        for line in block[1].splitlines():
            if open_command:
                said[-1] = Said(f"{said[-1].command}\n{line}", [])
            elif line.startswith("$ "):
                said.append(Said(line[2:], []))
            else:
                said[-1].lines.append(line)
                continue
            open_command = line.endswith("\\") or said[-1].command.count("'") % 2 == 1
        found.append(said)
    return found


def run(commands: list[str], folder: Path, *, timeout_s: float = 300) -> list[Said]:
    """Run the commands in one bash; what they print on both streams. Background jobs are ended."""
    port = str(free_port())
    script = "".join(
        f"{command.replace('8080', port)}\nended=$?; echo '{MARK}'; (exit $ended)\n"
        for command in commands
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("FALAJ_", "PYTHON", "GIT_"))}
    env |= {
        "PATH": f"{Path(sys.executable).parent}:{env.get('PATH', '')}",
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "NO_COLOR": "1",
        "COLUMNS": "100",
    }
    done = subprocess.run(
        ["bash", "-c", script + "kill $(jobs -p) 2>/dev/null; wait 2>/dev/null"],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    parts = done.stdout.replace(port, "8080").split(f"{MARK}\n")
    return [
        Said(command, part.splitlines()) for command, part in zip(commands, parts[:-1], strict=True)
    ]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def plain(line: str) -> str:
    """The words of a line, without what varies."""
    for pattern, instead in VARIES:
        line = pattern.sub(instead, line)
    return line.strip()


def told(expected: list[str], came: list[str]) -> list[str] | None:
    """The expected lines as they came now; None when one of them is missing or out of place."""
    found: list[str] = []
    at, skip = 0, False
    for line in expected:
        if line.strip() == ANY:
            found.append(line)
            skip = True
            continue
        while skip and at < len(came) and plain(came[at]) != plain(line):
            at += 1
        if at == len(came) or plain(came[at]) != plain(line):
            return None
        found.append(came[at])
        at, skip = at + 1, False
    return found if skip or at == len(came) else None


def differences(page: str, folder: Path) -> list[str]:
    """Run a page; each command that said something else than what stands there."""
    expected = [said for block in blocks(page) for said in block]
    came = run([said.command for said in expected], folder)
    return [
        f"$ {was.command}\n--- the page\n{text(was.lines)}\n--- it said\n{text(now.lines)}"
        for was, now in zip(expected, came, strict=True)
        if told(was.lines, now.lines) is None
    ]


def rewritten(page: str, folder: Path) -> str:
    """The page with outputs as they come now; elisions stay where their neighbours still match."""
    came = iter(run([said.command for block in blocks(page) for said in block], folder))

    def one(block: re.Match[str]) -> str:
        lines: list[str] = []
        for was in blocks(block[0])[0]:
            now = next(came)
            kept = told(was.lines, now.lines)
            lines += [f"$ {was.command}", *(now.lines if kept is None else kept)]
        return f"```console\n{text(lines)}\n```"

    return BLOCK.sub(one, page)


def text(lines: list[str]) -> str:
    return "\n".join(lines)


# --- the demo's excerpt ---

EXCERPT = re.compile(r"(<!-- demo: .*? -->\n```text\n).*?(```\n<!-- demo ends -->)", re.DOTALL)
CHAPTERS = (
    "The champion",
    "Its gates",
    "Release, change",
    "Its canary, on",
    "A harmful one",
    "Its canary goes",
    "Another retraining",
    "Evidence that",
)
ALWAYS = re.compile(r"  (?:\$ falaj (?:gate|rollout)| +labels: canary wrong|AUC)")


def excerpt(story: str) -> str:
    """Chapters that a reader of the README wants; what was told before is left out, long lines cut."""
    found: list[str] = []
    before: set[str] = set()
    for chapter in re.split(r"^(?=\[ *[\d.]+ s\])", story, flags=re.MULTILINE)[1:]:
        head, *lines = chapter.rstrip().splitlines()
        if not head.partition("] ")[2].startswith(CHAPTERS):
            continue
        found.append(head)
        for line in lines:
            if plain(line) not in before or ALWAYS.match(line):
                found.append(cut(line))
            elif found[-1] != "  ...":
                found.append("  ...")
            before.add(plain(line))
        found.append("")
    return "\n".join(found).rstrip() + "\n"


def cut(line: str, width: int = 112) -> str:
    return line if len(line) <= width else line[: width - 4].rstrip(" ,;(") + " ..."


def told_by_the_demo() -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = [Path(sys.executable).parent / "falaj", "demo", Path(folder) / "demo"]
        done = subprocess.run(
            command,
            env=os.environ | {"NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return done.stdout


def main() -> None:
    if sys.argv[1:2] == ["--demo"]:
        story = Path(sys.argv[2]).read_text() if sys.argv[2:] else told_by_the_demo()
        page = (ROOT / "README.md").read_text()
        (ROOT / "README.md").write_text(EXCERPT.sub(lambda m: m[1] + excerpt(story) + m[2], page))
        return
    for name in sys.argv[1:]:
        path = ROOT / name
        with tempfile.TemporaryDirectory() as folder:
            path.write_text(rewritten(path.read_text(), Path(folder)))


if __name__ == "__main__":
    main()
