"""``vidllava models``: which models have names, which are here, how to get one, and how to make one whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vidllava.cli import options
from vidllava.cli.console import Console
from vidllava.cli.progress import BatchProgress
from vidllava.errors import ModelError, UsageError
from vidllava.models import families, named_models
from vidllava.models.family import NamedModel
from vidllava.visuals.options import PoolingOptions

if TYPE_CHECKING:
    from vidllava.visuals.planner import ModelSettings, VisualPlanner

app = typer.Typer()

Name = Annotated[
    str, typer.Argument(help="A name from `vidllava models list`, a hub id or a folder.", metavar="MODEL")
]


LegacyKeys = Annotated[
    bool,
    typer.Option(
        "--legacy-keys",
        help="Names of weights as transformers 4 wrote them, which vLLM and SGLang read.",
    ),
]


@app.callback(invoke_without_command=True)
def alone(context: typer.Context, as_json: options.Json = False) -> None:
    """List models, show how one reads, download one, say where one lies, or make an adapter a whole model.

    Without a command, the list.
    """
    if context.invoked_subcommand is None:
        list_models(as_json=as_json)
    else:
        options.refuse_before(context, as_json)


@app.command("list")
def list_models(as_json: options.Json = False) -> None:
    """The models that --model knows by name, and whether they are on this machine.

    vidllava models list
    """
    rows = [_row(model, family.name) for family in families().values() for model in family.models]
    rows.sort(key=lambda row: row["hub_id"] is not None)
    if as_json:
        Console().json(rows, indent=2)
        return
    table = [
        (
            row["name"],
            row["family"],
            "yes" if row["folder"] else "no",
            _size(row["disk_bytes"]),
            _size(row["memory_bytes"]),
            f"{row['trained_context']:,}",
            row["about"],
        )
        for row in rows
    ]
    Console().table(("name", "family", "here", "disk", "memory", "context", "what it is"), table)


@app.command("show")
def show(model: Name, as_json: options.Json = False) -> None:
    """How a model reads clips and pictures, and how many frames fit its context; no weights are read.

    Works for the names of `vidllava models list` whether they are here or not, and for any folder.

    \b
    vidllava models show next-video-7b
    vidllava models show onevision-0.5b --json
    """
    from vidllava.backbone.folders import find_folder
    from vidllava.backbone.settings import named_settings, read_settings

    try:
        settings = read_settings(find_folder(model), model)
    except ModelError:
        if model not in named_models() or named_models()[model].hub_id is None:
            raise
        settings = named_settings(model)
    facts = _facts(settings)
    console = Console()
    if as_json:
        console.json(facts, indent=2)
        return
    for name, value in facts["reads"].items():
        console.write(f"{name}: {value}")
    strides = list(facts["frames_that_fit"])
    factors = list(facts["frames_that_fit"][strides[0]])
    limits = facts["limits"]
    head = ("RoPE factor", "tokens", *(f"stride {stride}" for stride in strides))
    rows = [
        (factor, limits[factor], *(facts["frames_that_fit"][stride][factor] for stride in strides))
        for factor in factors
    ]
    console.write("")
    console.write(f"frames that fit, {settings.preset.reserve_tokens} tokens kept for words and answer:")
    console.table(head, rows)


@app.command("where")
def where(model: Name) -> None:
    """Print the folder of a model that is on this machine.

    vidllava models where onevision-0.5b
    """
    from vidllava.backbone.locate import locate

    Console().write(str(locate(model)[1]))


@app.command("pull")
def pull(
    model: Name,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
) -> None:
    """Download a model into the Hugging Face cache, and print its folder.

    vidllava models pull onevision-0.5b
    """
    from vidllava.backbone.locate import locate

    Console().write(str(locate(model, download=True, revision=revision)[1]))


@app.command("export")
def export(
    adapter: Annotated[Path, typer.Argument(help="What `finetune --lora` left.", metavar="FOLDER")],
    output: Annotated[Path, typer.Argument(help="A folder that is not there yet.", metavar="OUT")],
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Number format of the weights; auto = the base's own."),
    ] = "auto",
    legacy_keys: LegacyKeys = False,
    quiet: options.Quiet = False,
) -> None:
    """Merge an adapter into its base: a whole model, which plain from_pretrained loads. Prints its folder.

    vidllava models export out/adapter merged
    """
    from vidllava.backbone.folders import is_adapter
    from vidllava.backbone.locate import locate
    from vidllava.cli import outputs

    if not adapter.is_dir():
        raise ModelError(adapter, "no such folder", "what finetune --lora left")
    if not is_adapter(adapter):
        raise UsageError(adapter, "is not an adapter's folder", "a whole model needs no export")
    if output.exists():
        raise UsageError("OUT", f"{output} exists", "name a folder that is not there yet")
    outputs.check_folder(output.absolute().parent)
    locate(str(adapter))
    from vidllava.backbone.convert import export as merge

    merge(adapter, output, dtype=dtype, legacy_keys=legacy_keys)
    Console(quiet=quiet, carries_on=True).write(str(output))


@app.command("convert")
def convert(
    model: Name,
    output: Annotated[Path, typer.Argument(help="A folder that is not there yet.", metavar="OUT")],
    to: Annotated[
        Literal["hf", "original"], typer.Option(help="transformers' layout, or lmms-lab's own.")
    ] = "hf",
    legacy_keys: LegacyKeys = False,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Number format of the weights; auto = as they are, bit for bit."),
    ] = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Write a model in transformers' or in lmms-lab's layout, number by number unless --dtype is given.

    Prints the folder. Weights that are missing, unexpected or of another shape are refused before anything is
    written.

    \b
    vidllava models convert lmms-lab/LLaVA-Video-7B-Qwen2 llava-video-hf
    vidllava models convert next-video-7b next-video-original --to original
    vidllava models convert onevision-7b for-vllm --legacy-keys
    """
    from vidllava.backbone.locate import locate
    from vidllava.cli import outputs

    if legacy_keys and to == "original":
        raise UsageError("--legacy-keys", "are names of transformers' layout", "leave out --to original")
    if output.exists():
        raise UsageError("OUT", f"{output} exists", "name a folder that is not there yet")
    outputs.check_folder(output.absolute().parent)
    _, folder = locate(model)
    from vidllava.backbone.convert import convert as write

    console = Console(quiet=quiet, carries_on=True)
    bars: list[BatchProgress] = []

    def told(done: int, total: int) -> None:
        if not bars:
            bars.append(BatchProgress(console, total, pause_seconds=2.0))
        bars[0].done("ok")

    notes = write(folder, output, to=to, legacy_keys=legacy_keys, dtype=dtype, on_progress=told)
    for note in notes:
        console.note(note)
    console.write(str(output))


@app.command("verify")
def verify(
    model: Name,
    logits: Annotated[
        bool,
        typer.Option(
            "--logits", help="Load the weights too, and compare the first logits that were published."
        ),
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="For published logits with a row of a picture in them: the file named above.", metavar="FILE"
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    as_json: options.Json = False,
) -> None:
    """Hold a model that is here against what was published of it; nothing is downloaded.

    Files, names and shapes of all tensors, ids, template, positions, pixels. Exit code 5 where one differs.
    --logits takes float16 on a GPU unless --dtype says otherwise, as the published ones did. One of them has
    a row of a picture in it: --picture is llava_v1_5_radar.jpg, from
    https://github.com/haotian-liu/LLaVA/blob/1a91fc274d7c35a9b50b3cb29c4247ae5837ce39/images/llava_v1_5_radar.jpg?raw=true

    \b
    vidllava models verify next-video-7b
    vidllava models verify onevision-0.5b --logits --picture llava_v1_5_radar.jpg
    """
    from vidllava.backbone.folders import find_folder

    find_folder(model)
    from vidllava.backbone.verify import verify as held

    checks = held(model, logits=logits, picture=picture, device=device, dtype=dtype)
    wrong = [check for check in checks if check.holds is False]
    console = Console(carries_on=True)
    if as_json:
        console.json([vars(check) for check in checks], indent=2)
    else:
        words = {True: "holds", False: "DIFFERS", None: "-"}
        rows = [(check.name, words[check.holds], check.found, check.expected) for check in checks]
        console.table(("check", "verdict", "found", "published"), rows)
    if wrong:
        what = f"{len(wrong)} of {len(checks)} checks differ from what was published: {wrong[0].name}"
        raise ModelError(model, what, "download it again, or report the figures above")


_STRIDES = (1, 2, 4)
_HALF_BYTES = 2  # the published weights are in bfloat16 or float16


def _row(model: NamedModel, family: str) -> dict[str, Any]:
    """What is told of a named model. Sizes are those that its published configuration implies."""
    from vidllava.backbone.settings import named_settings, read_settings

    folder = _folder(model)
    settings = read_settings(Path(folder), model.name) if model.hub_id is None and folder else None
    settings = settings or named_settings(model.name)
    disk = model.num_parameters * _HALF_BYTES if model.config else _bytes_in(folder)
    return {
        "name": model.name,
        "family": family,
        "hub_id": model.hub_id,
        "folder": folder,
        "disk_bytes": disk,
        "memory_bytes": _need(settings, model, disk),
        "trained_context": settings.trained_context,
        "least_factor": settings.least_factor,
        "about": model.about,
    }


def _bytes_in(folder: str | None) -> int:
    return sum(path.stat().st_size for path in Path(folder).glob("*.safetensors")) if folder else 0


def _need(settings: ModelSettings, model: NamedModel, weights_bytes: int) -> int:
    """Memory for one question about a clip of the preset's frames, in half precision."""
    from types import SimpleNamespace

    from vidllava.backbone.memory import Workload, estimate
    from vidllava.backbone.settings import read_config
    from vidllava.visuals.planner import VisualPlanner

    config = model.config or read_config(settings.folder or Path())
    text, vision = (SimpleNamespace(**config[part]) for part in ("text_config", "vision_config"))
    frames = settings.preset.num_frames
    tokens = VisualPlanner.of(settings).video(frames).num_tokens + settings.preset.reserve_tokens
    work = Workload(num_grids=frames, num_tokens=tokens)
    sizes = SimpleNamespace(text_config=text, vision_config=vision)
    return estimate(sizes, weights_bytes, itemsize=_HALF_BYTES, workload=work).total


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def _facts(settings: ModelSettings) -> dict[str, Any]:
    """How a model reads media, in words, and the frames that fit at each pool stride and RoPE factor."""
    from vidllava.prompting.budget import budget, scaled_limit
    from vidllava.visuals.planner import VisualPlanner

    planner, preset = VisualPlanner.of(settings), settings.preset
    frame = planner.video(1)
    crop = "the middle square" if not isinstance(settings.frame_size, int) else "squashed"
    block, newlines = frame.blocks[0], settings.preset.newline_mode
    where = "before the projector" if planner.pooling.at == "tower" else "after the projector"
    pooled = f"{settings.side} x {settings.side} -> {block.out_h} x {block.out_w}"
    how = (
        "not pooled"
        if block.mode == "copy"
        else f"{planner.pooling.mode}, stride {planner.pooling.stride}, {where}"
    )
    fit: dict[str, dict[str, int]] = {}
    for stride in dict.fromkeys((*_STRIDES, planner.pooling.stride)):
        asked = PoolingOptions(pool_stride=stride)
        try:
            one = VisualPlanner.of(settings, asked).video(1)
        except UsageError:  # a learned convolution has one stride
            continue
        counted = budget(
            [one],
            0,
            reserve_tokens=preset.reserve_tokens,
            context_limit=settings.trained_context,
            least_factor=settings.least_factor,
        )
        assert counted.frames_at_factor is not None
        fit[str(stride)] = {f"{factor:g}": count for factor, count in counted.frames_at_factor.items()}
    factors = next(iter(fit.values()))
    limits = {factor: scaled_limit(settings.trained_context, float(factor)) for factor in factors}
    least = settings.least_factor
    stored = f", stored RoPE factor {least:g} (its least)" if least != 1 else ""
    return {
        "name": settings.name,
        "reads": {
            "model": settings.name,
            "family": f"{settings.family}, read as {preset.name}",
            "frames": f"{preset.num_frames}, {settings.image_size} x {settings.image_size} pixels, {crop}",
            "tokens of a frame": f"{block.num_visual_tokens} ({pooled}, {how}), newline: {newlines}",
            "a picture alone": _picture(planner, settings, alone=True),
            "one of several": _picture(planner, settings, alone=False),
            "template": settings.template.name,
            "context": f"{settings.trained_context:,} trained positions{stored}",
        },
        "tokens_per_frame": block.num_visual_tokens,
        "trained_context": settings.trained_context,
        "least_factor": least,
        "limits": limits,
        "frames_that_fit": fit,
    }


def _picture(planner: VisualPlanner, settings: ModelSettings, *, alone: bool) -> str:
    rule = planner.picture_rule(alone=alone)
    if rule != "tiles":
        tokens = planner.picture(1, 1, alone=alone).num_tokens
        return f"{tokens} tokens, " + ("padded to a square" if rule == "square" else "squashed")
    most = max(planner.picture(height, width).num_tokens for height, width in settings.pinpoints)
    return f"up to {most:,} tokens, the whole and its tiles on {len(settings.pinpoints)} grids"


def _folder(model: NamedModel) -> str | None:
    from vidllava.backbone.folders import cached_folder, nano_folder

    folder: Path | None = nano_folder() if model.hub_id is None else cached_folder(model.hub_id)
    return str(folder) if folder is not None and (folder / "config.json").is_file() else None
