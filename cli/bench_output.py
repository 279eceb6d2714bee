"""What all benchmarks share: the model that is measured, and where rows go: a file, stdout, a table.

with RowOutput(console, output, as_json=False) as out:
    out.append(row)
show(console, table(out.rows))
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vidllava.bench.rows import RowLog, encoded
from vidllava.cli.asking import Weights
from vidllava.cli.console import Console
from vidllava.files.writing import refuse_inputs

if TYPE_CHECKING:
    from vidllava.backbone.model import Backbone

Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FILE", help="Append one JSON line per figure.", rich_help_panel="Output"
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="The rows on stdout, a JSON line each.", rich_help_panel="Output")
]
RandomWeights = Annotated[
    Literal["checkpoint", "random"],
    typer.Option(
        "--weights",
        help="random: measure a model's cost without its checkpoint. Its answers mean nothing.",
        rich_help_panel="Model",
    ),
]
Repeats = Annotated[
    int, typer.Option(min=1, help="Rounds; the table shows medians.", rich_help_panel="Rounds")
]


class RowOutput:
    """Each row is on disk before the next is measured, after the rows of earlier runs.

    ``fields``: those that every row has; ``begins``: how its line begins; ``inputs``: what is measured.
    Raises UsageError for a file of something else, one of the inputs, or one that another run writes into,
    and ResourceError where none can be written.
    """

    def __init__(
        self,
        console: Console,
        path: Path | None,
        *,
        as_json: bool,
        fields: Sequence[str],
        begins: bytes,
        inputs: Iterable[str | Path],
    ) -> None:
        self.rows: list[dict[str, Any]] = []
        self._console, self._as_json = console, as_json
        self._file = None
        if path is not None:
            refuse_inputs("--output", path, inputs)
            self._file = RowLog(
                path, overwrite=False, fields=fields, begins=re.compile(begins), hint="another name"
            )

    def __enter__(self) -> RowOutput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, row: dict[str, Any]) -> None:
        """One more row. Raises ResourceError where the disk is full."""
        self.rows.append(row)
        if self._file is not None:
            self._file.append(row)
        if self._as_json:
            self._console.write(encoded(row))


def show(console: Console, lines: Sequence[Sequence[str]], legend: Sequence[str] = ()) -> None:
    """A table on stderr, its heading first, and under it what its cells are.

    Columns by spaces, so that it reads without colour.
    """
    if console.quiet:
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    for line in lines:
        console.reply("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for line in legend:
        console.reply(line)


def open_measured(
    shown: str, weights: Weights, kind: Literal["checkpoint", "random"]
) -> tuple[Backbone, dict[str, Any]]:
    """The model named ``shown``, on as many threads as suit it; names, number format and conditions."""
    import torch

    from vidllava.backbone.load import choose_threads
    from vidllava.bench.models import open_model
    from vidllava.bench.rows import conditions
    from vidllava.kernels.dispatch import choose

    backbone = open_model(
        shown,
        weights=kind,
        device=weights.device,
        dtype=weights.dtype,
        attn_implementation=weights.attn_implementation,
        revision=weights.revision,
        pool_first=weights.pool_first,
    )
    torch.set_num_threads(choose_threads(backbone) or torch.get_num_threads())
    told = {
        "model": shown,
        "weights": kind,
        "pool_first": weights.pool_first,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "attn_implementation": weights.attn_implementation,
        "kernels": choose(backbone.device)[0],
    }
    return backbone, told | conditions(backbone.device, threads=torch.get_num_threads())
