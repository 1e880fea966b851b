"""A replay report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

import html as html_text
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nicoffload.errors import InvalidRequestError, PluginError
from nicoffload.flexivoffload import cost
from nicoffload.flexivoffload.accounts import FlowReport
from nicoffload.flexivoffload.explain import describe
from nicoffload.flexivoffload.ledger import Count
from nicoffload.flexivoffload.plots import Plots
from nicoffload.flexivoffload.report import ReplayReport

TOP_FLOWS = 25
EXPLAINED_FLOWS = 8


def check_tools() -> None:
    """Check that what writes reports is installed.

    Raises:
        PluginError: matplotlib or jinja2 is not.
    """
    try:
        import jinja2  # noqa: F401, PLC0415 - only to see whether it is there
        import matplotlib  # noqa: F401, ICN001, PLC0415 - likewise
    except ImportError as cause:
        raise PluginError(
            f"an HTML report needs {cause.name}, which is not installed",
            hint="pip install 'nicoffload[report]'",
        ) from cause


def write_html(report: ReplayReport, path: Path) -> None:
    """Write a report.

    Args:
        report: The report.
        path: File to write; missing folders are made.

    Raises:
        InvalidRequestError: The file can't be written.
        PluginError: matplotlib or jinja2 is not installed.
    """
    check_tools()
    text = render_html(report)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as cause:
        raise InvalidRequestError(cause.strerror or str(cause), path=str(path)) from cause


def render_html(report: ReplayReport) -> str:
    """Return a report as the text of an HTML document."""
    from importlib.resources import files  # noqa: PLC0415 - only a report needs it

    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415 - an extra, and slow to import

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters: dict[str, Callable[..., str]] = {
        "number": "{:,}".format,
        "size": size_text,
        "percent": percent_text,
    }
    environment.filters.update(filters)
    source = files("nicoffload.flexivoffload").joinpath("templates", "report.html.j2").read_text("utf-8")
    return environment.from_string(source).render(_context(report))


def _context(report: ReplayReport) -> dict[str, Any]:
    plots = Plots(report)
    return {
        "report": report,
        "capture": Path(report.capture).name,
        "total": report.total,
        "skipped": report.skipped_total,
        "plots": plots.all(),
        "flows": [_flow(report, flow) for flow in report.flows[:TOP_FLOWS]],
        "explained": [(flow, list(describe(flow, report.start_ns))) for flow in _telling(report)],
        "vms": [(vm, vm.offloaded + vm.onloaded) for vm in report.vms],
        "peak_rows": max((row.table_rows for row in report.intervals), default=0),
        "saved_core_s": report.cpu.without_offload_core_s - report.cpu.with_offload_core_s,
        "formula": cost.FORMULA,
        "source": cost.SOURCE,
        "base_percent": cost.BASE_PERCENT,
    }


def _flow(report: ReplayReport, flow: FlowReport) -> dict[str, Any]:
    whole = flow.offloaded.bytes + flow.onloaded.bytes
    largest = report.flows[0].offloaded.bytes + report.flows[0].onloaded.bytes
    return {
        "flow": flow,
        "name": html_text.escape(flow.flow).replace(",", ",<wbr>"),
        "share": flow.offloaded.bytes / whole if whole else 0.0,
        "width": 100 * whole / largest if largest else 0.0,
    }


def _telling(report: ReplayReport) -> list[FlowReport]:
    """Return flows whose stories differ: the largest of each ending."""
    found: dict[tuple[str, str], FlowReport] = {}
    for flow in report.flows:
        found.setdefault((flow.direction, flow.code), flow)
    return list(found.values())[:EXPLAINED_FLOWS]


def size_text(count: Count) -> str:
    """Return bytes with a unit, to three digits."""
    value = float(count.bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} PB"


def percent_text(share: float) -> str:
    """Return a part of one as percent."""
    return f"{100 * share:.1f} %"
