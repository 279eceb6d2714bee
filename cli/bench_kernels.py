"""`vidllava bench kernels`: measure, write each row at once, show the table; 1 if a result is wrong."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path

import typer

from vidllava.bench.kernel_cases import MOST_PROCESSES, KernelRequest
from vidllava.bench.rows import Row, RowLog
from vidllava.cli import startup
from vidllava.cli.console import Console, counted
from vidllava.cli.progress import BatchProgress
from vidllava.errors import UsageError, VidllavaError
from vidllava.settings import KEY, flag_of

# Two starts of a process differ, in clocks and in where memory lies; a median of three less so.
PROCESSES_ON_CUDA = 3


class WrongResult(VidllavaError):
    """A kernel computes something else than its definition: a fault of ours."""


def run(
    request: KernelRequest,
    *,
    device: str,
    processes: int | None,
    process: int | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Raises UsageError before anything is measured, and WrongResult at the end.

    ``process``: this is one of several processes that measure the same, and shows no table.
    """
    if processes is not None and not 1 <= processes <= MOST_PROCESSES:
        raise UsageError(
            f"--processes {processes}", f"must be 1 to {MOST_PROCESSES}", f"a number up to {MOST_PROCESSES}"
        )
    console = Console(quiet=quiet, carries_on=output is not None)
    with ExitStack() as stack:
        file = None if output is None else stack.enter_context(RowLog(output, overwrite=overwrite))
        if (processes or _usual_processes(device)) > 1:
            number = processes or PROCESSES_ON_CUDA
            stack.close()  # the processes write into the file, one after the other
            shown = _in_processes(request, device, output, number, as_json=as_json, quiet=quiet)
        else:
            rows = _here(request, device, process or 0, file, console, as_json=as_json)
            shown = [*(file.rows if file is not None else []), *rows]
        # A row that was skipped or wrong in an earlier run and is measured now stands twice in the file.
        shown = list({row["key"]: row for row in shown}.values())
        if process is None:
            _show(shown, console)
    if wrong := _wrong(shown):
        if process is not None:
            raise typer.Exit(WrongResult.exit_code)
        first = wrong[0]
        raise WrongResult(
            f"{first['kernel']}, {first['shape']}, {first['dtype']}",
            f"{first['check']['fault']}; {counted(len(wrong), 'row')} without a time",
            "a fault of vidllava: please report the rows",
        )


def _usual_processes(device: str) -> int:
    with startup.collector_paused():
        from vidllava.backbone.load import choose_device

    return PROCESSES_ON_CUDA if choose_device(device)[0].type == "cuda" else 1


def _here(
    request: KernelRequest, device: str, process: int, file: RowLog | None, console: Console, *, as_json: bool
) -> list[Row]:
    """Measure in this process; what is finished when Ctrl-C comes is written and shown."""
    with startup.collector_paused():
        from vidllava.backbone.load import choose_device
        from vidllava.bench.kernels import KernelBench

    bench = KernelBench(request, choose_device(device)[0], process=process)
    threads = counted(request.threads, "thread")
    console.note(f"{bench.conditions['device']}, {threads}; kernels: {bench.implementation} ({bench.reason})")
    progress = BatchProgress(console, bench.num_rows)
    rows: list[Row] = []
    try:
        for row in bench.rows(file.done if file is not None else frozenset()):
            if row is not None:
                rows.append(row)
                if file is not None:
                    file.append(row)
                if as_json:
                    console.json(row)
            right = row is None or row["check"] is None or row["check"]["fault"] is None
            progress.done("ok" if right else "wrong")
    except KeyboardInterrupt:
        if sys.stderr is not None and sys.stderr.isatty():
            console.reply("")
        _show([*(file.rows if file is not None else []), *rows], console)
        raise
    return rows


def _in_processes(
    request: KernelRequest, device: str, output: Path | None, processes: int, *, as_json: bool, quiet: bool
) -> list[Row]:
    """Measure in fresh processes, which append to one file; the rows that then stand there."""
    with _file_for(output) as path:
        flags = ["bench", "kernels", *flags_of(request), "--device", device, "--output", str(path)]
        flags += ["--json"] * as_json + ["--quiet"] * quiet
        code = run_fresh(flags, module="vidllava.cli.main", processes=processes)
        with RowLog(path, overwrite=False) as file:
            rows = file.rows
        if code not in (0, 1) or (code == 1 and not _wrong(rows)):
            # It has said itself what it was.
            raise typer.Exit(code)
        return rows


@contextmanager
def _file_for(output: Path | None) -> Iterator[Path]:
    if output is not None:
        yield output
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "rows.jsonl"


def _wrong(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["check"] is not None and row["check"]["fault"] is not None]


def _show(rows: list[Row], console: Console) -> None:
    from vidllava.bench.kernel_rows import table_lines

    if rows and not console.quiet:
        for line in table_lines(rows):
            console.reply(line)


def run_fresh(arguments: Sequence[str], *, module: str, processes: int) -> int:
    """``python -m module arguments --process N`` for each N in turn; returns the worst exit code.

    1 is a wrong result: the other processes still run. Anything else ends it.
    """
    worst = 0
    for number in range(processes):
        done = subprocess.run([sys.executable, "-m", module, *arguments, "--process", str(number)])
        worst = max(worst, done.returncode)
        if done.returncode not in (0, 1):
            return done.returncode
    return worst


def flags_of(request: KernelRequest) -> list[str]:
    """The command line that asks for the same."""
    flags: list[str] = []
    for field in fields(request):
        flag, *_ = field.metadata[KEY]["flags"] or (flag_of(field.name),)
        value = getattr(request, field.name)
        if isinstance(value, bool):
            on, _, off = flag.partition("/")
            flags += [on] if value else [off] if off else []
        elif value != ():
            flags += [flag, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    return flags
