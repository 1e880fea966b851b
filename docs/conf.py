"""Sphinx configuration; `make docs` builds with -n -W, so every reference resolves or is listed here."""

from __future__ import annotations

from importlib.metadata import version as _version

project = "nicoffload"
author = "The nicoffload authors"
copyright = "The nicoffload authors"
version = release = _version("nicoffload")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["build"]
templates_path = ["_templates"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"nicoffload {release}"

# The reference is made from the modules themselves: a new public module appears without a page being written.
autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
default_role = "code"  # `name` in a docstring is code, as in Markdown

nitpicky = True
# The build needs no network, so there is no inventory (intersphinx) of what others document.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(abc|argparse|array|asyncio|collections|contextlib|dataclasses|datetime|enum|functools|io|ipaddress)(\..*)?",
    ),
    (
        r"py:.*",
        r"(importlib|itertools|json|os|pathlib|random|sqlite3|struct|threading|types|typing|uuid)(\..*)?",
    ),
    (
        r"py:.*",
        r"(dpkt|jinja2|jsonschema|matplotlib|np|numpy|pluggy|pytest|pyroute2|pyudev|rich|yaml)(\..*)?",
    ),
    # Standard library classes that a signature names without their module.
    (
        r"py:class",
        r"(Callable|Enum|IntEnum|IntFlag|Iterable|Iterator|Mapping|Namespace|Path|Sequence|StrEnum|UUID)",
    ),
    (r"py:class", r"(IPv[46](Address|Network)|NDArray|ndarray|optional)"),
]
