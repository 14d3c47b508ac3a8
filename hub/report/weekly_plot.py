"""The weekly report as a picture: the days by source against what is usual, and the week among those before it."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image

from hub.report.weekly_model import WeeklyReport

# Okabe and Ito's colours, which colour-blind people tell apart too; the last is for what has none of its own.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_OTHERS = "#9AA5B1"
_INK, _FAINT, _BEFORE = "#1F2933", "#7B8794", "#CBD2D9"
_DPI = 100


def plot(report: WeeklyReport) -> bytes:
    """A PNG of 960 × 360 pixels and about 10 kB, which fits Dagster's dialog. The same report gives the same bytes."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08)
    figure = Figure(figsize=(9.6, 3.6), dpi=_DPI, layout=layout, facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _days(left, report)
    _weeks(right, report)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
    # A palette makes it a third of the size.
    image = drawn.convert("RGB").quantize(96, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    written = io.BytesIO()
    image.save(written, "PNG", optimize=True, dpi=(_DPI, _DPI))
    return written.getvalue()


def _days(axes: Axes, report: WeeklyReport) -> None:
    _bare(axes, "Readings by day")
    axes.set_xticks(range(7), [f"{day:%a}\n{day.day}" for day in report.week.days])
    axes.set_xlim(-0.6, 6.6)
    # By age, so that a source keeps its colour from week to week, also when another is silent or new.
    coloured = sorted(report.sources[: len(_COLOURS)], key=lambda each: (each.first_day or dt.date.max, each.source))
    colours = dict(zip((each.source for each in coloured), _COLOURS, strict=False))
    shown = [each.source for each in coloured if each.readings.now]
    usual = False
    highest = 0.0
    for place, day in enumerate(report.days):
        height = 0
        drawn = [(day.sources.get(source, 0), colours[source]) for source in shown]
        for count, colour in [*drawn, (day.readings - sum(count for count, _ in drawn), _OTHERS)]:
            axes.bar(place, count, 0.62, height, color=colour)
            height += count
        if day.usual is not None and day.quartiles is not None:
            usual = True
            axes.hlines(day.usual, place - 0.42, place + 0.42, color=_INK, linewidth=1.6, zorder=3)
            axes.vlines(place, *day.quartiles, color=_INK, linewidth=1.0, zorder=3)
        if not day.known and not height:
            _above(axes, "not loaded", place, 0, rotation=90, fontsize=8, color=_FAINT)
        top = max(height, day.usual or 0, *(day.quartiles or ()))
        highest = max(highest, top)
        if day.unusual and day.usual:
            text = f"×{day.readings / day.usual:.1f}" if day.readings else "none"
            _above(axes, text, place, top, weight="bold", color=_INK)
    _scale(axes, highest)
    handles = [Patch(color=colours[source]) for source in shown]
    names = list(shown)
    if any(set(day.sources) - set(shown) for day in report.days):
        handles.append(Patch(color=_OTHERS))
        names.append("others")
    if usual:
        handles.append(axes.plot([], [], color=_INK, linewidth=1.6)[0])  # type: ignore[arg-type]
        names.append("usual")
    if not handles:
        return
    legend = axes.legend(
        handles, ["x" * min(len(each), 20) for each in names], loc="upper center", bbox_to_anchor=(0.5, -0.16),
        ncols=4, frameon=False, fontsize=8.5, handlelength=1.1, columnspacing=1.2,
    )  # fmt: skip
    # Set afterwards: matplotlib hides labels that begin with an underscore, and takes dollars for mathematics.
    for label, each in zip(legend.get_texts(), names, strict=True):
        label.set_parse_math(False)
        label.set_text(each if len(each) <= 20 else f"{each[:19]}…")


def _weeks(axes: Axes, report: WeeklyReport) -> None:
    whole = len(report.known) == 7
    _bare(axes, "Readings by week" if whole else "The same days of each week")
    for place, (week, total) in enumerate(report.weeks):
        if total is not None:
            axes.bar(place, total, 0.7, color=_COLOURS[0] if week == report.week else _BEFORE)
    axes.set_xticks(range(len(report.weeks)), [f"W{str(week)[-2:]}" for week, _ in report.weeks], fontsize=8)
    axes.set_xlim(-0.7, len(report.weeks) - 0.3)
    if report.readings.usual is not None:
        axes.axhline(report.readings.usual, color=_INK, linewidth=1.0, linestyle=(0, (4, 3)))
    _scale(axes, max(total or 0.0 for _, total in report.weeks))


def _bare(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, color=_INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_BEFORE)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=_FAINT)
    axes.yaxis.grid(True, color="#EEF1F4")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter(lambda value, place: f"{value:,.0f}")
    axes.set_axisbelow(True)


def _scale(axes: Axes, highest: float) -> None:
    """From zero, with room for a word above the highest bar; with nothing drawn, say so."""
    axes.set_ylim(0, 1.16 * highest or 1)
    if not highest:
        axes.set_yticks([])
        axes.text(0.5, 0.45, "no readings", transform=axes.transAxes, ha="center", color=_FAINT)


def _above(axes: Axes, text: str, place: float, height: float, **style: Any) -> None:
    axes.annotate(text, (place, height), (0, 4), textcoords="offset points", ha="center", **style)
