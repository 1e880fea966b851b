"""The plots of a replay report, as SVG: the same two colours throughout, safe for the colour-blind."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nicoffload.flexivoffload import cost
from nicoffload.flexivoffload.report import ReplayReport

NIC_COLOR = "#0072B2"
SWITCH_COLOR = "#E69F00"
INK = "#3d4752"
GRID = "#e3e8ed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One plot.

    Args:
        title: What it shows.
        caption: How to read it.
        svg: The picture, to be put into a page as it is.
    """

    title: str
    caption: str
    svg: str


class Plots:
    """Draws the plots of one report."""

    def __init__(self, report: ReplayReport) -> None:
        self._report = report
        self._width_s = report.interval_s or 1.0
        rows = report.intervals
        self._edges = [row.start_s for row in rows] + ([rows[-1].start_s + self._width_s] if rows else [])

    def all(self) -> list[Plot]:
        """Return the plots in the order in which they are read; none where there were no packets."""
        if not self._report.intervals:
            return []
        usable = sum(rows for _, rows, _ in self._report.tables)
        return [
            Plot(
                title="Share on the NIC",
                caption="Part of the bytes of each interval that the NIC carried.",
                svg=self._draw(self._share),
            ),
            Plot(
                title="Packets per second by path",
                caption="Stacked: the NIC below, the virtual switch above.",
                svg=self._draw(self._packets),
            ),
            Plot(
                title="Rules in the NIC",
                caption=f"Most at a time in each interval; {usable:,} rows may be used.",
                svg=self._draw(self._rows),
            ),
            Plot(
                title="CPU of the host, modelled",
                caption=f"Percent of one core, above the {cost.BASE_PERCENT:g} % that it needs at rest.",
                svg=self._draw(self._cpu),
            ),
        ]

    def _share(self, axes: Any) -> None:
        rows = self._report.intervals
        whole = [row.offloaded.bytes + row.onloaded.bytes for row in rows]
        share = [
            100 * row.offloaded.bytes / size if size else 0.0 for row, size in zip(rows, whole, strict=True)
        ]
        axes.stairs(share, self._edges, fill=True, color=NIC_COLOR, alpha=0.85, linewidth=0)
        axes.set_ylim(0, 100)
        axes.set_ylabel("percent of bytes")

    def _packets(self, axes: Any) -> None:
        rows = self._report.intervals
        nic = [row.offloaded.packets / self._width_s for row in rows]
        both = [(row.offloaded.packets + row.onloaded.packets) / self._width_s for row in rows]
        axes.stairs(
            both,
            self._edges,
            baseline=nic,
            fill=True,
            color=SWITCH_COLOR,
            linewidth=0,
            label="virtual switch",
        )
        axes.stairs(nic, self._edges, fill=True, color=NIC_COLOR, linewidth=0, label="NIC")
        axes.set_ylabel("packets/s")
        self._legend(axes)

    def _rows(self, axes: Any) -> None:
        rows = [row.table_rows for row in self._report.intervals]
        axes.stairs(rows, self._edges, fill=True, color=NIC_COLOR, alpha=0.25, linewidth=0)
        axes.stairs(rows, self._edges, color=NIC_COLOR, linewidth=1.6)
        axes.set_ylabel("rules")

    def _cpu(self, axes: Any) -> None:
        rows = self._report.intervals
        without = [row.cpu_percent_without - cost.BASE_PERCENT for row in rows]
        with_it = [row.cpu_percent - cost.BASE_PERCENT for row in rows]
        axes.stairs(
            without, self._edges, color=SWITCH_COLOR, linewidth=1.6, label="all on the virtual switch"
        )
        axes.stairs(with_it, self._edges, color=NIC_COLOR, linewidth=1.6, label="as it went")
        axes.set_ylabel("percent of a core")
        self._legend(axes)

    @staticmethod
    def _legend(axes: Any) -> None:
        axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.22 or 1)
        axes.legend(
            loc="upper right", frameon=False, fontsize=9, ncols=2, handlelength=1.2, borderaxespad=0.2
        )

    def _draw(self, fill: Callable[[Any], None]) -> str:
        from matplotlib import rc_context  # noqa: PLC0415 - an extra, and slow to import
        from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415 - likewise
        from matplotlib.figure import Figure  # noqa: PLC0415 - likewise
        from matplotlib.ticker import MaxNLocator, StrMethodFormatter  # noqa: PLC0415 - likewise

        settings: Any = {
            "svg.fonttype": "none",
            "svg.hashsalt": "nicoffload",
            "font.family": "sans-serif",
            "font.size": 10,
        }
        with rc_context(settings):
            figure = Figure(figsize=(5.0, 2.6), layout="constrained")
            FigureCanvasSVG(figure)
            axes = figure.add_subplot()
            fill(axes)
            axes.set_xlim(self._edges[0], self._edges[-1])
            axes.set_ylim(bottom=0)
            axes.set_xlabel("seconds of the capture")
            axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
            axes.yaxis.set_major_formatter(
                StrMethodFormatter("{x:,.4g}" if axes.get_ylim()[1] < 1000 else "{x:,.0f}")
            )
            axes.grid(axis="y", color=GRID, linewidth=0.8)
            axes.set_axisbelow(True)
            axes.tick_params(colors=INK, length=0)
            for side, spine in axes.spines.items():
                spine.set_visible(side == "bottom")
                spine.set_color(GRID)
            for label in (axes.xaxis.label, axes.yaxis.label):
                label.set_color(INK)
            out = io.StringIO()
            figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
        return _inline(out.getvalue())


def _inline(svg: str) -> str:
    """Return a picture without what only a file of its own needs, and with the page's font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%" role="img"', svg, count=1)
    return re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
