"""A report as one HTML page with its pictures inside, that fetches nothing and is read in light and dark.

    render(Page(title="How many frames?", subject="nano on clips.jsonl", command="vidllava bench", ...))

Every text is escaped. The style and the markup are `page.html.j2`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from vidllava.report.charts import Chart
from vidllava.report.drawing import LIGHT, svg

_WIDTHS = (("wide", 590), ("narrow", 354))
# A line that breaks within a flag is not a line to copy.
_FLAG = re.compile(r"--[a-z-]+ \S+")


@dataclass(frozen=True)
class TableRow:
    """``kind``: classes of the row, ``best`` or ``group`` (the first of one)."""

    cells: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A head may have two lines."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[TableRow, ...]
    legend: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """What stands in a report, in the order of the page. ``groups`` are tables that open and close."""

    title: str
    subject: str
    command: str
    advice: Sequence[str]
    key: Sequence[tuple[str, str]] = ()
    """(mark as SVG, what it means)."""
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    groups: Sequence[Table] = ()
    facts_title: str = "The questions and the machine"
    facts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()


def render(page: Page) -> str:
    """The whole file."""
    from jinja2 import Environment
    from markupsafe import Markup, escape

    environment = Environment(autoescape=True, keep_trailing_newline=True)
    environment.filters["svg"] = lambda chart, width: svg(chart, width=width)
    environment.filters["flags"] = lambda text: Markup(
        _FLAG.sub(r'<span class="flag">\g<0></span>', str(escape(text)))
    )
    text = files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(page=page, colours=LIGHT, widths=_WIDTHS)
