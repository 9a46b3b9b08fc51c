"""Sphinx: the documentation is built with warnings as errors and loads nothing from outside."""

project = "Falaj"
author = "The Falaj authors"
copyright = "The Falaj authors, Apache License 2.0"  # noqa: A001 Sphinx asks for this name
extensions = ["myst_parser"]
exclude_patterns = []
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "Falaj"
html_show_sphinx = False
html_last_updated_fmt = None
language = "en"
