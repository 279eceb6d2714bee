"""What a run is set to, how that is recorded, and whether another start is the same run.

job = Job(model="nano", data=("train.jsonl",), output_dir=Path("out"))
run_state(job, settings, mixture, None)      # what a checkpoint remembers, and a resume is held against
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from vidllava.backbone.locate import bases, locate, weights_identity
from vidllava.backbone.settings import Tuning
from vidllava.data.load import Schemes
from vidllava.data.mixture import Mixture
from vidllava.data.token_counter import EncodeOptions
from vidllava.errors import DatasetError, ModelError, VidllavaError
from vidllava.media.limits import DEFAULT_LIMITS, Limits
from vidllava.training.checkpoint import Checkpoint, finished_run, make_room, results, settings_there
from vidllava.training.settings import FIXED, TrainingSettings

OF_EVAL_DATA = ("eval_steps", "per_device_eval_batch_size")
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
    family          the family that the run makes of the model, or None; `finetune` fills it in
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
    family: str | None = None


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


def check_own(job: Job, saved: dict[str, Any], now: dict[str, Any]) -> None:
    """What is in the output folder, without a checkpoint, must be of this very run to be started anew.

    Raises ModelError, UsageError or DatasetError for another run's; with `overwrite` that is deleted.
    """
    output = job.output_dir
    if not results(output):
        return
    before, finished = settings_there(output), finished_run(output)
    try:
        if finished is not None:
            check_same(finished, now, allow_changes=job.allow_changes)
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


def check_same(found: Checkpoint, now: dict[str, Any], *, allow_changes: bool) -> None:
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
    values |= {} if job.eval_data else dict.fromkeys(OF_EVAL_DATA)
    values["report_to"] = values["report_to"] or None
    return values


def with_origins(resolved: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """settings.json: every option resolved, and under `derived` what was given of those that a stage, recipe,
    model or other option decided. `--config` lets them be decided again, unless the file was edited."""
    derived = {
        name: {"given": given[name], "became": value}
        for name, value in resolved.items()
        if value != given[name]
    }
    return {**resolved, "derived": derived}
