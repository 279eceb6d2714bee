"""One fine-tuning run, from data files to a folder that `from_pretrained` loads.

    job = Job(model="nano", data=("train.jsonl",), output_dir=Path("out"))
    finetune(job, TrainingSettings(max_steps=100), Silent())

What can be wrong without a model (settings, output folder, every row of the data, the checkpoint) is
checked before torch is even imported.
"""

from __future__ import annotations

import importlib.util
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from vidllava.backbone.folders import nano_folder
from vidllava.backbone.locate import locate
from vidllava.backbone.settings import read_settings
from vidllava.data.load import Loading, Part, load_mixture, parts_of
from vidllava.errors import ModelError, ResourceError, UsageError, VidllavaError
from vidllava.files.writing import refuse_inputs, write_json
from vidllava.training.checkpoint import (
    FINISHED_FILE,
    SETTINGS_FILE,
    Checkpoint,
    claimed,
    find_checkpoint,
    read_checkpoint,
    results,
    set_aside_after,
)
from vidllava.training.job import OF_EVAL_DATA, Job, check_own, check_same, record, run_state, with_origins
from vidllava.training.recipe import family_to_become, resolve
from vidllava.training.report import (
    LEDGER_FILE,
    METRICS_FILE,
    PLOT_FILE,
    Report,
    RunEnd,
    Silent,
    Tracked,
    check_trackers,
    draw,
    keep_until,
)
from vidllava.training.settings import TrainingSettings

LATEST = "latest"


def finetune(job: Job, settings: TrainingSettings, report: Report) -> RunEnd:
    """Run or resume `job`. The final weights stand in `job.output_dir` itself, unless a signal ended the run.

    Raises UsageError, DatasetError, ModelError, ResourceError or DivergedError, each with its own exit code.
    """
    if not job.data:
        raise UsageError("--data", "is missing", "name at least one .json or .jsonl file")
    for name in OF_EVAL_DATA:
        if getattr(settings, name) is not None and not job.eval_data:
            raise UsageError("--" + name.replace("_", "-"), "is for --eval-data", "name rows to measure on")
    check_trackers(settings.report_to)
    if settings.lora and importlib.util.find_spec("peft") is None:
        raise UsageError("--lora", "needs peft, which is not installed", "pip install 'vidllava[lora]'")
    first = is_first_process()
    report = report if first else Silent()
    _refuse_inputs(job, lora=settings.lora)
    owned = claimed(job.output_dir, resume=_stays(job), overwrite=job.overwrite)
    with owned if first else nullcontext():
        found = _checkpoint(job, report)
        seed = int(settings.resolved().data_seed or 0)
        loading = Loading(media_root=job.media_root, schemes=job.schemes, seed=seed, on_note=report.said)
        mixture = load_mixture(job.data, job.data_weights, loading)
        held_out = load_mixture(job.eval_data, (), loading) if job.eval_data else None
        given = record(job, settings.as_given())
        job, settings = _resolved(job, settings, found, report)
        saved = with_origins(record(job, settings.to_json()), given)
        if found is not None:
            check_same(found, run_state(job, settings, mixture, found), allow_changes=job.allow_changes)
        elif job.resume is not None and first:
            check_own(job, saved, run_state(job, settings, mixture, found))
        from vidllava.training.session import TrainingProcess  # imports torch and accelerate

        tracked = Tracked(report, settings.report_to, job.output_dir, record(job, settings.to_json()))
        session = TrainingProcess(job, settings, mixture, found, tracked, held_out)
        if (before := session.finished_before()) is not None:
            return before
        if first:
            _take_over(job, found, report)
            write_json(job.output_dir / SETTINGS_FILE, saved)
        try:
            return session.run()
        finally:
            if first:
                _finish(job.output_dir, tracked)


def _refuse_inputs(job: Job, *, lora: bool) -> None:
    """Raises UsageError where the run would overwrite or delete its own model or data."""
    output, model = job.output_dir, Path(job.model).expanduser()
    inputs = [part.path for name in (*job.data, *job.eval_data) for part in _files_of(name, job)]
    folders = [model, *([Path(job.resume)] if job.resume not in (None, LATEST) else [])]
    if model.is_dir() and job.resume is None:
        use = "the adapter would stand on" if lora else "is trained from"
        what = f"{output} holds the model that {use}"
        if output.is_dir() and output.samefile(model):
            raise UsageError("--output-dir", what, "give another folder")
    names = {METRICS_FILE, LEDGER_FILE, SETTINGS_FILE, FINISHED_FILE, PLOT_FILE}
    names |= {path.name for path in (model if model.is_dir() else nano_folder()).iterdir()}
    for name in sorted(names):
        refuse_inputs("--output-dir", output / name, inputs)
    for place in [] if _stays(job) else results(output):
        for path in [*inputs, *folders]:
            if place.is_dir() and path.resolve().is_relative_to(place.resolve()):
                what = "would be deleted, and is an input of this command"
                raise UsageError(f"--output-dir {output}: {path}", what, "give another folder")


def _files_of(spec: str, job: Job) -> list[Part]:
    """The files of rows behind one spec; none where it is not in order, which is told when it is loaded."""
    try:
        return parts_of(spec, Loading(media_root=job.media_root, schemes=job.schemes))
    except VidllavaError:
        return []


def _stays(job: Job) -> bool:
    """Whether the run goes on in the folder that its checkpoints are in."""
    if job.resume is None or job.resume == LATEST:
        return job.resume is not None
    return Path(job.resume).resolve().parent == job.output_dir.resolve()


def _take_over(job: Job, found: Checkpoint | None, report: Report) -> None:
    """Drop what an earlier start has written of the steps that come now."""
    step = 0 if found is None else found.step
    for name in (METRICS_FILE, LEDGER_FILE):
        keep_until(job.output_dir / name, step)
    (job.output_dir / FINISHED_FILE).unlink(missing_ok=True)
    if found is not None:
        for line in set_aside_after(job.output_dir, step):
            report.said(line)
    elif job.resume is not None:
        report.noted(f"{job.output_dir} holds no checkpoint: the run starts from the beginning")


def _resolved(
    job: Job, settings: TrainingSettings, found: Checkpoint | None, report: Report
) -> tuple[Job, TrainingSettings]:
    """Job and settings with nothing left open, for the model that the run starts from."""
    if found is None:
        shown, folder = locate(job.model, download=job.download)
        if settings.lora and folder.resolve() == job.output_dir.resolve():
            what = f"{job.output_dir} holds the model that the adapter would stand on"
            raise UsageError("--output-dir", what, "give another folder")
    else:
        shown, folder = job.model, found.folder
    model = read_settings(folder, shown)
    resolved = resolve(settings, job.encode, model)
    report.resolved(resolved.rows)
    family = family_to_become(settings, model)
    return replace(job, encode=resolved.encode, tuning=resolved.tuning, family=family), resolved.settings


def _finish(output: Path, tracked: Tracked) -> None:
    """Whatever ended the run: let the trackers write, and draw what there is. Neither may hide the end."""
    try:
        tracked.close()
        draw(output / METRICS_FILE, output / PLOT_FILE)
    except (OSError, ValueError, ResourceError) as fault:
        tracked.said(f"{PLOT_FILE} could not be drawn: {fault}")


def _checkpoint(job: Job, report: Report) -> Checkpoint | None:
    """The checkpoint to go on from; None where the run starts from the beginning.

    Raises ModelError where a named one is not whole, or none of those in the output folder is.
    """
    if job.resume is None:
        return None
    if job.resume != LATEST:
        return read_checkpoint(Path(job.resume))
    found, skipped = find_checkpoint(job.output_dir)
    for line in skipped:
        report.said(line)
    if found is None and skipped and not job.overwrite:
        what = "holds no complete checkpoint, but damaged ones"
        raise ModelError(job.output_dir, what, "--overwrite-output-dir starts from the beginning")
    return found


def is_first_process() -> bool:
    """Whether this is the only process, or the one of a launcher's that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"
