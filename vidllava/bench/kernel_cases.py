"""What `vidllava bench kernels` is asked for, and its cases: sizes, bytes and memory, by arithmetic.

    cases(KernelRequest(models=("0.5b",), num_frames=(32,), ...), on_cuda=False)

Nothing here needs torch. Sizes: config.json of llava-hf/llava-onevision-qwen2-{0.5b,7b}-ov-hf, and of nano;
of the other families as ``vidllava.models`` has them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vidllava.errors import UsageError
from vidllava.prompting.layout import Block, NewlineMode, PoolMode, VisualLayout, video_layout
from vidllava.settings import setting

FAMILY_MODELS = (
    "next-video-7b",
    "next-video-34b",
    "next-video-7b-32k",
    "interleave-0.5b",
    "interleave-7b",
    "llava-video-7b",
)
"""Models of the other families whose shapes differ: CLIP's 24 x 24 cells averaged to 12 x 12 before the
projector, heads of 128 without and with fewer keys, frames that are not pooled, newlines after rows."""
Kernel = Literal["splice", "rotate"]
Direction = Literal["forward", "backward", "both"]
_SHAPES, _SAMPLES = "Shapes", "Samples"
MOST_FRAMES, MOST_SAMPLES, MOST_THREADS, MOST_PROCESSES = 4096, 100_000, 1024, 100
# 14 tokens before the clip and 50 after it: a system line, a question and the turn's marks.
TEXT_BEFORE, TEXT_AFTER = 14, 50
# Text rows are gathered by id, so the rest of a vocabulary costs memory and nothing else.
VOCABULARY_ROWS = 4096


def parse_words(flag: str, text: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    """``a,b`` -> ("a", "b"), each of them allowed and once. Raises UsageError."""
    words = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for word in words:
        if word not in allowed:
            raise UsageError(f"{flag} {word!r}", "no such choice", f"one or more of {','.join(allowed)}")
    return words


def parse_counts(flag: str, text: str, most: int) -> tuple[int, ...]:
    """``8,32`` -> (8, 32), each 1 to ``most``. Raises UsageError."""
    counts = []
    for word in text.split(","):
        if not word.strip().isascii() or not word.strip().isdigit() or not 1 <= int(word) <= most:
            raise UsageError(f"{flag} {word.strip()!r}", f"must be whole numbers from 1 to {most}", "8,32")
        counts.append(int(word))
    return tuple(dict.fromkeys(counts))


def _words(flag: str, help: str, allowed: tuple[str, ...]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        # As everywhere, newline modes may be written with a dash.
        return parse_words(flag, text.replace("-", "_") if flag == "--newline-mode" else text, allowed)

    return setting((), help, panel=_SHAPES, flags=(flag,), metavar="LIST", parse=parse)


@dataclass(frozen=True, kw_only=True)
class KernelRequest:
    """Which rows to measure, and how long. An empty tuple is the device's own default, or all."""

    models: tuple[str, ...] = _words(
        "--model",
        f"nano, 0.5b, 7b (OneVision), {', '.join(FAMILY_MODELS)}: whose sizes. "
        "nano,0.5b on a CPU, 0.5b,7b on CUDA.",
        ("nano", "0.5b", "7b", *FAMILY_MODELS),
    )
    num_frames: tuple[int, ...] = setting(
        (),
        "Frames of a clip. 8,32 on a CPU, 8,32,128 on CUDA.",
        panel=_SHAPES,
        metavar="LIST",
        parse=lambda text: parse_counts("--num-frames", text, MOST_FRAMES),
    )
    newline_modes: tuple[NewlineMode, ...] = _words(
        "--newline-mode",
        "one_token, grid, frame, no_token. one_token on a CPU, one_token,grid on CUDA.",
        get_args(NewlineMode),
    )
    kernels: tuple[Kernel, ...] = _words("--kernel", "splice, rotate.", get_args(Kernel))
    directions: tuple[Direction, ...] = _words("--direction", "forward, backward, both.", get_args(Direction))
    dtypes: tuple[str, ...] = _words(
        "--dtype",
        "float32, bfloat16, float16. float32 on a CPU, bfloat16 on CUDA.",
        ("float32", "bfloat16", "float16"),
    )
    odd: bool = setting(
        True,
        "Also a decode step, a training batch, and sizes that kernels were found wrong at.",
        panel=_SHAPES,
        flags=("--odd/--no-odd",),
    )
    share: bool = setting(
        True,
        "Also the time of a whole prefill with random weights, and the kernels' share of it.",
        panel=_SAMPLES,
        flags=("--share/--no-share",),
    )
    compile: bool = setting(
        False,
        "Also transformers' operations under torch.compile: a minute of compiling.",
        panel=_SAMPLES,
    )
    threads: int = setting(1, "CPU threads.", panel=_SAMPLES)
    num_samples: int = setting(
        100, "Samples of a row; on a CPU at most so many.", panel=_SAMPLES, flags=("--samples",)
    )
    row_seconds: float = setting(
        1.5,
        "On a CPU: after 5 samples of a row, no more than fit in so long.",
        panel=_SAMPLES,
        metavar="SECONDS",
    )

    def __post_init__(self) -> None:
        for flag, value, most in (
            ("--threads", self.threads, MOST_THREADS),
            ("--samples", self.num_samples, MOST_SAMPLES),
        ):
            if not 1 <= value <= most:
                raise UsageError(f"{flag} {value}", f"must be 1 to {most}", f"a number up to {most}")
        if not 0 < self.row_seconds <= 3600:
            raise UsageError(
                f"--row-seconds {self.row_seconds:g}", "must be above 0 and at most 3600", "for example 1.5"
            )


@dataclass(frozen=True, kw_only=True)
class ModelSizes:
    """As much of a model's configuration as decides what it costs."""

    name: str
    side: int
    """Cells on each side of a frame's grid."""
    image_size: int
    tower_width: int
    tower_mlp: int
    tower_heads: int
    tower_layers: int
    """Layers that are run: OneVision's checkpoints have 26 and take the last one's output."""
    width: int
    mlp: int
    q_heads: int
    k_heads: int
    layers: int
    rope_theta: float

    @property
    def head_size(self) -> int:
        return self.width // self.q_heads


_SIGLIP = {
    "side": 27,
    "image_size": 384,
    "tower_width": 1152,
    "tower_mlp": 4304,
    "tower_heads": 16,
    "tower_layers": 26,
}
MODELS = {
    sizes.name: sizes
    for sizes in (
        ModelSizes(
            name="nano",
            side=7,
            image_size=84,
            tower_width=128,
            tower_mlp=384,
            tower_heads=4,
            tower_layers=4,
            width=192,
            mlp=448,
            q_heads=6,
            k_heads=6,
            layers=6,
            rope_theta=1e4,
        ),
        ModelSizes(
            name="0.5b", **_SIGLIP, width=896, mlp=4864, q_heads=14, k_heads=2, layers=24, rope_theta=1e6
        ),
        ModelSizes(
            name="7b", **_SIGLIP, width=3584, mlp=18944, q_heads=28, k_heads=4, layers=28, rope_theta=1e6
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One shape of one kernel. ``model`` and ``num_frames`` are None where the shape belongs to no model."""

    kernel: Kernel
    name: str
    """What the table calls it."""
    model: str | None = None
    batch_size: int = 1
    num_frames: int | None = None
    side: int = 0
    pool_mode: PoolMode = "bilinear"
    pool_stride: int = 2
    newline_mode: NewlineMode = "one_token"
    channels: int = 0
    """Channels of a row of the language model's input (splice)."""
    length: int
    """Tokens of each sample."""
    q_heads: int = 0
    k_heads: int = 0
    head_size: int
    rotated: int
    """Channels of a head that are rotated; the tables' width."""
    rope_theta: float = 1e6

    @property
    def layout(self) -> VisualLayout:
        """The rows of each sample's clip."""
        assert self.num_frames is not None, "only a splice with frames has a layout"
        return video_layout(
            self.num_frames,
            side=self.side,
            stride=self.pool_stride,
            mode=self.pool_mode,
            newline=self.newline_mode,
        )


def cases(request: KernelRequest, *, on_cuda: bool) -> list[Case]:
    """Every shape that is asked for; those that are shared by several settings once."""
    found = dict.fromkeys(_asked(request, on_cuda=on_cuda))
    return [case for case in found if not request.kernels or case.kernel in request.kernels]


def _asked(request: KernelRequest, *, on_cuda: bool) -> Iterator[Case]:
    for name in request.models or (("0.5b", "7b") if on_cuda else ("nano", "0.5b")):
        if name in FAMILY_MODELS:
            for num_frames in request.num_frames or ((8, 32, 128) if on_cuda else (8, 32)):
                yield from family_cases(name, num_frames)
            continue
        sizes = MODELS[name]
        for num_frames in request.num_frames or ((8, 32, 128) if on_cuda else (8, 32)):
            for newline in request.newline_modes or (("one_token", "grid") if on_cuda else ("one_token",)):
                yield splice_case(sizes, num_frames, newline_mode=newline)
                yield rotate_case(sizes, num_frames, newline_mode=newline)
        if request.odd:
            yield Case(
                kernel="rotate",
                name=f"{name} decode step",
                model=name,
                length=1,
                **_heads(sizes),
            )
            if name == "nano":
                yield splice_case(sizes, 8, batch_size=8)
                yield rotate_case(sizes, 8, batch_size=8)
    if request.odd:
        yield from _odd()


def family_cases(name: str, num_frames: int) -> Iterator[Case]:
    """A clip of a published model: its splice, in two steps where it is pooled before the projector, and the
    rotation of one layer."""
    # Not at the top: --help reads this module, and needs no numpy.
    from vidllava.backbone.settings import named_settings
    from vidllava.models import named_models
    from vidllava.visuals.planner import VisualPlanner

    config, settings = named_models()[name].config, named_settings(name)
    text, pooling = config["text_config"], VisualPlanner.of(settings).pooling
    layout = VisualPlanner.of(settings).video(num_frames)
    head = text["hidden_size"] // text["num_attention_heads"]
    shared: dict[str, Any] = {
        "num_frames": num_frames,
        "length": TEXT_BEFORE + layout.num_tokens + TEXT_AFTER,
        "head_size": head,
        "rotated": head,
        "rope_theta": text["rope_parameters"]["rope_theta"],
        "newline_mode": pooling.newline,
    }
    clip, width = f"{name}, {num_frames} frames", text["hidden_size"]
    grid: dict[str, Any] = {"side": settings.side, "pool_mode": pooling.mode, "pool_stride": pooling.stride}
    if pooling.at == "tower":
        seen = config["vision_config"]["hidden_size"]
        yield Case(kernel="splice", name=f"{clip}, pooled", channels=seen, **grid, **shared)
        grid |= {"side": layout.blocks[0].out_h, "pool_stride": 1}
        clip += ", placed"
    yield Case(kernel="splice", name=clip, channels=width, **grid, **shared)
    heads = {"q_heads": text["num_attention_heads"], "k_heads": text["num_key_value_heads"]}
    yield Case(kernel="rotate", name=f"{name}, {num_frames} frames", **heads, **shared)


def splice_case(
    sizes: ModelSizes, num_frames: int, *, newline_mode: NewlineMode = "one_token", batch_size: int = 1
) -> Case:
    """Clips of ``num_frames`` frames and 64 tokens of text, as the preset of the model pools them."""
    of_clip = _of_clip(sizes, num_frames, newline_mode, batch_size)
    size = sizes.head_size
    turned: dict[str, Any] = {"head_size": size, "rotated": size, "rope_theta": sizes.rope_theta}
    return Case(kernel="splice", side=sizes.side, channels=sizes.width, **of_clip, **turned)


def rotate_case(
    sizes: ModelSizes, num_frames: int, *, newline_mode: NewlineMode = "one_token", batch_size: int = 1
) -> Case:
    """q and k of one layer for the same prompt."""
    return Case(kernel="rotate", **_of_clip(sizes, num_frames, newline_mode, batch_size), **_heads(sizes))


def _odd() -> Iterator[Case]:
    """Shapes at which kernels were found wrong or slow: heads that are no power of two, partial rotation."""
    yield Case(
        kernel="splice",
        name="odd: average, 13 frames",
        batch_size=3,
        num_frames=13,
        side=27,
        pool_mode="average",
        newline_mode="frame",
        channels=80,
        length=TEXT_BEFORE + TEXT_AFTER + 13 * (13 * 13 + 1),
        head_size=80,
        rotated=80,
    )
    sizes: dict[str, Any] = {"kernel": "rotate", "length": 217}
    yield Case(**sizes, name="odd: 13 heads of 80", q_heads=13, k_heads=1, head_size=80, rotated=80)
    yield Case(**sizes, name="odd: 32 of 80 channels", q_heads=6, k_heads=2, head_size=80, rotated=32)


def _heads(sizes: ModelSizes) -> dict[str, Any]:
    size = sizes.head_size
    heads = {"q_heads": sizes.q_heads, "k_heads": sizes.k_heads}
    return {**heads, "head_size": size, "rotated": size, "rope_theta": sizes.rope_theta}


def _of_clip(
    sizes: ModelSizes, num_frames: int, newline_mode: NewlineMode, batch_size: int
) -> dict[str, Any]:
    layout = video_layout(num_frames, side=sizes.side, stride=2, mode="bilinear", newline=newline_mode)
    several = f"{batch_size} x " if batch_size > 1 else ""
    newline = "" if newline_mode == "one_token" else f", {newline_mode}"
    return {
        "name": f"{sizes.name}, {several}{num_frames} frames{newline}",
        "model": sizes.name,
        "batch_size": batch_size,
        "num_frames": num_frames,
        "newline_mode": newline_mode,
        "length": TEXT_BEFORE + layout.num_tokens + TEXT_AFTER,
    }


def bytes_moved(case: Case, direction: Direction, *, element_bytes: int) -> int:
    """Bytes of one call.

    splice forward      P + Q + T: the cells that some block reads; every row of the input; both tables
    splice backward     Q' + P': the gradients of visual and newline rows; every feature's gradient
    rotate, either way  2 (q + k) + T: q and k read and written; both tables read, at full width
    both                the sum of the two

    Not counted, as they are below 1 % of a clip: the embeddings of the text, the newline vector, the plan.
    """
    if direction == "both":
        ways: tuple[Direction, ...] = ("forward", "backward")
        return sum(bytes_moved(case, way, element_bytes=element_bytes) for way in ways)
    tables = 2 * case.batch_size * case.length * case.rotated
    if case.kernel == "rotate":
        heads = case.q_heads + case.k_heads
        return element_bytes * (2 * case.batch_size * case.length * heads * case.head_size + tables)
    layout = case.layout
    if direction == "forward":
        read = sum(cells_read(block) for block in layout.blocks)
        return element_bytes * (case.batch_size * case.channels * (read + case.length) + tables)
    features = layout.num_grids * case.side * case.side
    return element_bytes * case.batch_size * case.channels * (features + layout.num_tokens)


def cells_read(block: Block) -> int:
    """Cells that a block's outputs depend on: average and max drop what fills no square."""
    if block.mode in ("average", "max"):
        return block.out_h * block.out_w * block.stride**2
    return block.in_h * block.in_w


# Inputs, gradients, outputs, and the copies of transformers' chain (kernels/README.md: 7 times the least).
TIMES_INPUTS = 12


def why_skipped(case: Case, *, element_bytes: int, num_sets: int, free: int) -> str | None:
    """Why a case is not measured; None if it fits ``free`` bytes."""
    needed = bytes_needed(case, element_bytes=element_bytes, num_sets=num_sets)
    if needed <= free:
        return None
    return f"needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"


def bytes_needed(case: Case, *, element_bytes: int, num_sets: int) -> int:
    """About: TIMES_INPUTS times the inputs, and four times them for every further set of buffers."""
    if case.kernel == "rotate":
        elements = case.batch_size * case.length * (case.q_heads + case.k_heads) * case.head_size
    else:
        cells = case.layout.num_grids * case.side**2
        elements = case.batch_size * case.channels * (cells + case.length)
    return elements * element_bytes * (TIMES_INPUTS + 4 * (num_sets - 1))
