"""One fine-tuning run, from data files to a folder that `from_pretrained` loads.

    job = Job(model="nano", data=("train.jsonl",), output_dir=Path("out"))
    finetune(job, TrainingSettings(max_steps=100), Silent())

What can be wrong without a model (settings, output folder, every row of the data, the checkpoint) is
checked before torch is even imported.
"""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from vidllava.backbone.folders import nano_folder
from vidllava.backbone.locate import bases, locate, weights_identity
from vidllava.backbone.settings import Tuning, read_settings
from vidllava.data.load import Loading, Schemes, load_mixture, parts_of
from vidllava.data.mixture import Mixture
from vidllava.data.mixture_file import Part
from vidllava.data.options import EncodeOptions
from vidllava.errors import DatasetError, ModelError, ResourceError, UsageError, VidllavaError
from vidllava.files.writing import refuse_inputs, write_json
from vidllava.media.limits import DEFAULT_LIMITS, Limits
from vidllava.training import trackers
from vidllava.training.checkpoint import (
    Checkpoint,
    find_checkpoint,
    read_checkpoint,
    set_aside_after,
)
from vidllava.training.output import (
    FINISHED_FILE,
    SETTINGS_FILE,
    claimed,
    finished_run,
    make_room,
    results,
    settings_there,
)
from vidllava.training.plots import PLOT_FILE, draw
from vidllava.training.recipe import resolve
from vidllava.training.report import LEDGER_FILE, METRICS_FILE, Outcome, Report, Silent, keep_until
from vidllava.training.settings import FIXED, TrainingSettings
from vidllava.training.trackers import Tracked

LATEST = "latest"
_OF_EVAL_DATA = ("eval_steps", "per_device_eval_batch_size")
# Options beside the settings that another start of the same run may change.
_FREE = {"eval_data", "device", "attn_implementation", "download", "decode_timeout", "derived"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to train on what, and where the result goes.

    limits          how much of a file is read, and how long is waited for it, before it counts as bad
    eval_data       held-out rows, whose loss is measured every `eval_steps`; in `media_root` too
    schemes         generated data sets by name, see `vidllava.data.load.Loading`
    resume          a checkpoint folder, or "latest" for the newest complete one in `output_dir`, from the
                    beginning where there is none
    allow_changes   resume although settings or data differ from the checkpoint's
    tuning          what changes of the model besides its weights; `finetune` fills it in
    """

    model: str
    data: tuple[str, ...]
    output_dir: Path
    media_root: Path | None = None
    data_weights: tuple[float, ...] = ()
    eval_data: tuple[str, ...] = ()
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    limits: Limits = DEFAULT_LIMITS
    device: str = "auto"
    attn_implementation: str = "sdpa"
    download: bool = False
    schemes: Schemes = field(default_factory=dict)
    resume: str | None = None
    overwrite: bool = False
    allow_changes: bool = False
    tuning: Tuning = field(default_factory=Tuning)


def finetune(job: Job, settings: TrainingSettings, report: Report) -> Outcome:
    """Run or resume `job`. The final weights stand in `job.output_dir` itself, unless a signal ended the run.

    Raises UsageError, DatasetError, ModelError, ResourceError or DivergedError, each with its own exit code.
    """
    if not job.data:
        raise UsageError("--data", "is missing", "name at least one .json or .jsonl file")
    for name in _OF_EVAL_DATA:
        if getattr(settings, name) is not None and not job.eval_data:
            raise UsageError("--" + name.replace("_", "-"), "is for --eval-data", "name rows to measure on")
    trackers.check(settings.report_to)
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
        saved = _with_origins(record(job, settings.to_json()), given)
        if found is not None:
            _check_same(found, run_state(job, settings, mixture, found), allow_changes=job.allow_changes)
        elif job.resume is not None and first:
            _check_own(job, saved, run_state(job, settings, mixture, found))
        from vidllava.training.session import Session  # imports torch and accelerate

        tracked = Tracked(report, settings.report_to, job.output_dir, record(job, settings.to_json()))
        session = Session(job, settings, mixture, found, tracked, held_out)
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
        factor = settings.rope_factor
    else:
        shown, folder = job.model, found.folder
        # The checkpoint has the factor that it was trained with.
        factor = settings.rope_factor / float(found.state["run"]["settings"].get("rope_factor", 1.0))
    resolved = resolve(settings, job.encode, read_settings(folder, shown), rope_factor=factor)
    report.resolved(resolved.rows)
    return replace(job, encode=resolved.encode, tuning=resolved.tuning), resolved.settings


def _finish(output: Path, tracked: Tracked) -> None:
    """Whatever ended the run: let the trackers write, and draw what there is. Neither may hide the end."""
    try:
        tracked.close()
        draw(output / METRICS_FILE, output / PLOT_FILE)
    except (OSError, ValueError, ResourceError) as fault:
        tracked.said(f"{PLOT_FILE} could not be drawn: {fault}")


def is_first_process() -> bool:
    """Whether this is the only process, or the one of a launcher's that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


def run_state(
    job: Job, settings: TrainingSettings, mixture: Mixture, found: Checkpoint | None
) -> dict[str, Any]:
    """What makes this run the run it is; a checkpoint remembers it. JSON values only."""
    encode = {name: value for name, value in vars(job.encode).items() if name != "request"}
    encode["request"] = None if job.encode.request is None else vars(job.encode.request)
    encode["sampling"] = job.encode.sampling or "time"
    state: dict[str, Any] = {"settings": settings.fixed(), "encode": encode, "data": mixture.fingerprint()}
    if settings.lora:  # its checkpoints hold additions alone
        folders = [locate(job.model)[1]] if found is None else bases(found.folder)
        state["base"] = weights_identity(folders[0]) if folders else None
    return json.loads(json.dumps(state))  # as it will be read back: lists for tuples


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


def _check_own(job: Job, saved: dict[str, Any], now: dict[str, Any]) -> None:
    """What is in the output folder, without a checkpoint, must be of this very run to be started anew.

    Raises ModelError, UsageError or DatasetError for another run's; with `overwrite` that is deleted.
    """
    output = job.output_dir
    if not results(output):
        return
    before, finished = settings_there(output), finished_run(output)
    try:
        if finished is not None:
            _check_same(finished, now, allow_changes=job.allow_changes)
        elif before is None:
            make_room(output, overwrite=False)
        elif changed := [] if job.allow_changes else _changed_settings(before, saved):
            hint = "use the same settings, --overwrite-output-dir, or another folder"
            raise ModelError(output, f"holds another run: {', '.join(changed)}", hint)
    except VidllavaError:
        if not job.overwrite:
            raise
        make_room(output, overwrite=True)


def _changed_settings(before: dict[str, Any], saved: dict[str, Any]) -> list[str]:
    """``name old -> new`` of what makes a run another one; an older version may not know all names."""
    free = {field.name for field in fields(TrainingSettings)} - set(FIXED) | _FREE
    values = json.loads(json.dumps(saved))  # lists for tuples
    names = [name for name in values if name not in free and name in before]
    return [f"{name} {before[name]} -> {values[name]}" for name in names if before[name] != values[name]]


# What held before a run could be set to it.
_ONCE = {"sampling": "index"}


def _check_same(found: Checkpoint, now: dict[str, Any], *, allow_changes: bool) -> None:
    """Refuse to go on with other settings or data than the checkpoint's, unless that is wanted."""
    if allow_changes:
        return
    before = found.state["run"]
    changed = [
        f"{name} {before[part].get(name, _ONCE.get(name))} -> {value}"
        for part in ("settings", "encode")
        for name, value in now[part].items()
        if before[part].get(name, _ONCE.get(name)) != value
    ]
    hint = "use the same, or --allow-changes"
    if changed:
        raise ModelError(found.folder, f"was made with other settings: {', '.join(changed)}", hint)
    if "base" in before and before["base"] != now.get("base"):
        what = "the model under this adapter changed since the checkpoint was written"
        raise ModelError(found.folder, what, "put it back, or --allow-changes")
    if before["data"] != now["data"]:
        raise DatasetError(found.folder, "the data changed since this checkpoint was written", hint)


def record(job: Job, settings: dict[str, Any]) -> dict[str, Any]:
    """What the run is set to, by the names of the command's options; `settings` as JSON values."""
    encode, request = job.encode, job.encode.request
    values: dict[str, Any] = {
        "model": job.model,
        "data": list(job.data),
        "data_weights": list(job.data_weights) or None,
        "eval_data": list(job.eval_data) or None,
        "media_root": None if job.media_root is None else str(job.media_root),
        "decode_timeout": job.limits.decode_seconds,
        "num_frames": None if request is None else request.num_frames,
        "fps": None if request is None else request.fps,
        "max_frames": None if request is None else request.max_frames,
        "sampling": encode.sampling,
        "video_backend": encode.video_backend,
        "pool_stride": encode.pool_stride,
        "pool_mode": encode.pool_mode,
        "newline_mode": encode.newline_mode,
        "placement": encode.placement,
        "anyres_grids": encode.anyres_grids,
        "anyres_max_tiles": encode.anyres_max_tiles,
        "model_max_length": encode.max_length,
        "formatting_prompts": encode.formatting_prompts,
        "upstream_labels": encode.labels == "upstream",
        "device": job.device,
        "attn_implementation": job.attn_implementation,
        "download": job.download,
        **settings,
    }
    values["freeze"] = "none" if values["freeze"] == [] else values["freeze"]
    values["max_grad_norm"] = values["max_grad_norm"] or 0
    values |= {} if job.eval_data else dict.fromkeys(_OF_EVAL_DATA)
    values["report_to"] = values["report_to"] or None
    return values


def _with_origins(resolved: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """settings.json: every option resolved, and under `derived` what was given of those that a stage, recipe,
    model or other option decided. `--config` lets them be decided again, unless the file was edited."""
    derived = {
        name: {"given": given[name], "became": value}
        for name, value in resolved.items()
        if value != given[name]
    }
    return {**resolved, "derived": derived}
