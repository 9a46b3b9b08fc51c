"""Make the reference page of falaj.toml from the typed tree: python docs/make_reference.py."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from falaj.base.settings import Setting, settings
from falaj.facts.project import Project

PAGE = Path(__file__).parent / "reference" / "falaj-toml.md"
HEAD = '''\
# falaj.toml

One typed tree. An unknown key is an error, with its place and the nearest name; all mistakes of a
file are shown at once. Times are texts with a unit: `30s`, `5m`, `12h`, `1d`. `[]` stands for each
element of a list of tables, `<name>` for a name of your choice. Secrets never stand in this file.
`falaj config show` prints each value in force and where it came from.

The file is read like this, and every mistake carries its place:

```python
from pathlib import Path
from tempfile import TemporaryDirectory

from falaj.base.errors import FalajError
from falaj.links.files.project import config_values, read_project

TEXT = """
[project]
name = "flight-delay"
region = "ae"

[model]
name = "flight-delay"
pipeline = "pipeline:delay"
task = "binary-classification"
"""

with TemporaryDirectory() as folder:
    file = Path(folder) / "falaj.toml"
    file.write_text(TEXT)
    assert read_project(file).model.name == "flight-delay"
    assert config_values(file)[0] == ("project.name", "flight-delay", "falaj.toml:3")

    file.write_text(TEXT + "purpos = 'to plan crews'")
    try:
        read_project(file)
    except FalajError as error:
        assert error.code == "config.unknown-key"
        assert str(error.problems[0].place) == "falaj.toml:10:1"
        assert error.problems[0].fix == "did you mean `purpose`?"
```
'''


def page() -> str:
    lines = [HEAD]
    for table, rows in groupby(settings(Project), key=table_of):
        lines += [f"## {table}", "", "| key | value | default | what it is |", "|---|---|---|---|"]
        lines += [row(setting) for setting in rows]
        lines.append("")
    return "\n".join(lines)


def table_of(setting: Setting) -> str:
    home = setting.path.rpartition(".")[0]
    return f"[[{home.removesuffix('[]')}]]" if home.endswith("[]") else f"[{home}]"


def row(setting: Setting) -> str:
    key = setting.path.rpartition(".")[2]
    default = setting.default if setting.default in ("required", "none") else f"`{setting.default}`"
    cells = (f"`{key}`", setting.kind, default, setting.about)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page())
