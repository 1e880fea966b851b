"""Sphinx configuration; `make docs` builds with -n -W, so every reference resolves or is listed here."""

from __future__ import annotations

import importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docutils.nodes import Element
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

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
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_title = f"nicoffload {release}"

# The pages on modules are made from the list in reference/index.md. A package's page describes its `__all__`.
autosummary_generate = True
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
# nicoffload.profiles and its module types describe the same classes, and a short name in a signature finds both.
suppress_warnings = ["ref.python"]
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
        r"(dpkt|jinja2|jsonschema|matplotlib|np|npt|numpy|pluggy|pytest|pyroute2|pyudev|rich|yaml)(\..*)?",
    ),
    # Standard library classes that a signature names without their module.
    (
        r"py:class",
        r"(Callable|Enum|IntEnum|IntFlag|Iterable|Iterator|Mapping|Namespace|Path|Sequence|StrEnum|Traversable|UUID)",
    ),
    # Named in the signature of a public class, and not public itself.
    (
        r"py:class",
        r"nicoffload\.kernel\.(netlink\.Message|devlink\.values\.Handle|representors\.NetdevIdentity)",
    ),
    (
        r"py:class",
        r"(nicoffload\.kernel\.tc\.lower\.)?QueueStyle|nicoffload\.linux\.counting\.CounterColumns",
    ),
    (r"py:class", r"nicoffload\.testing\.emulator\.device\.Device"),
    (r"py:class", r"(nicoffload\.testing\.emulator\.config\.)?Config|Check|Parts"),
    (r"py:class", r"(IPv[46](Address|Network)|NDArray|ndarray|optional)"),
]


def public_name(target: str) -> str:
    """Return the name by which a package offers what one of its modules defines; "" where it does not."""
    parts = target.split(".")
    for depth in range(len(parts) - 2, 1, -1):  # from the nearest package up
        package, name = ".".join(parts[:depth]), parts[-1]
        if name in getattr(importlib.import_module(package), "__all__", ()):
            return f"{package}.{name}"
    return ""


def resolve_public(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: Element
) -> Element | None:
    """Send a reference to the defining module (what annotations name) to the page of the package."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("nicoffload."):
        return None
    name = public_name(target)
    if not name:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, node["reftype"], name, node, contnode)


class KeepProse:
    """Keep napoleon from reading "A TCP, UDP or SCTP port: 0 to 65535" below an attribute as a type and its meaning."""

    def __init__(self) -> None:
        self.written: dict[str, list[str]] = {}

    def before(
        self, app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
    ) -> None:
        """Remember what the author wrote."""
        if what in {"attribute", "data"}:
            self.written[name] = list(lines)

    def after(
        self, app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
    ) -> None:
        """Put it back."""
        lines[:] = self.written.pop(name, lines)


def setup(app: Sphinx) -> None:
    """Connect what this file adds to Sphinx."""
    prose = KeepProse()
    app.connect("autodoc-process-docstring", prose.before, priority=400)  # napoleon's is 500
    app.connect("autodoc-process-docstring", prose.after, priority=600)
    app.connect("missing-reference", resolve_public)
