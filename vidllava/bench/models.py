"""A model to measure, from its checkpoint or with random weights; the time of a prefill.

backbone = open_model("nano")
backbone = open_model("onevision-7b", weights="random", device="cuda")

prefills = Prefills(device, threads=1)
prefills.of(case, torch.float32)     # Prefill(ms=6210.0, how="measured: one language layer x 24, ...")
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import torch
import transformers
from torch import nn
from transformers import (
    LlavaOnevisionConfig,
    Qwen2Config,
    Qwen2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.llava_onevision.modeling_llava_onevision import LlavaOnevisionMultiModalProjector

from vidllava.backbone.load import check_random, choose_device, choose_dtype, load_backbone, random_backbone
from vidllava.backbone.locate import locate
from vidllava.backbone.memory import free_bytes
from vidllava.backbone.model import Backbone
from vidllava.backbone.rotary import fit_kernels
from vidllava.backbone.settings import named_settings
from vidllava.backbone.tokens import read_codec
from vidllava.backbone.tower import tower_states
from vidllava.bench.clock import quantile
from vidllava.bench.kernel_cases import MODELS, Case, ModelSizes
from vidllava.errors import ModelError, UsageError
from vidllava.models import family_of, named_models

Weights = Literal["checkpoint", "random"]
_VOCABULARY = {"0.5b": 152_000, "7b": 152_128}  # embedding rows of the published checkpoints
_IMAGE_ID, _VIDEO_ID = 151_646, 151_647


def open_model(
    name: str,
    *,
    weights: Weights = "checkpoint",
    device: str = "auto",
    dtype: str = "auto",
    attn_implementation: str = "sdpa",
    download: bool = False,
    revision: str | None = None,
    pool_first: bool = False,
) -> Backbone:
    """The model called ``name``. ``weights`` random: its architecture, also where no checkpoint is at hand.

    Random models read text with nano's tokenizer: their answers mean nothing. Raises as ``load_backbone``.
    """
    if weights == "checkpoint":
        return load_backbone(
            name,
            device=device,
            dtype=dtype,
            attn_implementation=attn_implementation,
            download=download,
            revision=revision,
            pool_first=pool_first,
        )
    try:
        _, folder = locate(name, revision=revision)
        backbone = random_backbone(folder, device=device, dtype=dtype)
    except ModelError:
        if name not in named_models():
            known = ", ".join(named_models())
            raise UsageError(f"--model {name}", "is not here, and its sizes are not known", known) from None
        backbone = _without_checkpoint(name, device, dtype, attn_implementation)
    backbone.pool_first = pool_first
    return backbone


def _without_checkpoint(name: str, device: str, dtype: str, attn_implementation: str) -> Backbone:
    place, _ = choose_device(device)
    kind, _ = choose_dtype(dtype, place)
    published = named_models()[name].config
    hf_class = getattr(transformers, family_of(published, name).hf_class)
    config = hf_class.config_class.from_dict(copy.deepcopy(dict(published)))
    check_random(name, config, kind, place)
    _, nano = locate("nano")
    settings = replace(named_settings(name), folder=None)
    with torch.random.fork_rng(), torch.device(place):
        torch.manual_seed(0)
        hf = hf_class._from_config(config, dtype=kind, attn_implementation=attn_implementation)
    return Backbone(hf, settings, read_codec(nano)).to(place).eval()


def published_config(size: str) -> LlavaOnevisionConfig:
    """The configuration of the published 0.5b or 7b checkpoint."""
    sizes: ModelSizes = MODELS[size]
    tied = size == "0.5b"
    words = {"max_position_embeddings": 32_768, "tie_word_embeddings": tied, "vocab_size": _VOCABULARY[size]}
    return LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", **_tower_sizes(sizes, sizes.tower_layers)},
        text_config={"model_type": "qwen2", **_language_sizes(sizes, sizes.layers), **words},
        image_token_index=_IMAGE_ID,
        video_token_index=_VIDEO_ID,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
        image_grid_pinpoints=[[384 * y, 384 * x] for y in range(1, 7) for x in range(1, 7)],
        tie_word_embeddings=tied,
    )


def _tower_sizes(sizes: ModelSizes, num_layers: int) -> dict[str, Any]:
    return {
        "hidden_size": sizes.tower_width,
        "intermediate_size": sizes.tower_mlp,
        "num_hidden_layers": num_layers,
        "num_attention_heads": sizes.tower_heads,
        "image_size": sizes.image_size,
        "patch_size": sizes.image_size // sizes.side,
        "vision_use_head": False,
    }


def _language_sizes(sizes: ModelSizes, num_layers: int) -> dict[str, Any]:
    return {
        "hidden_size": sizes.width,
        "intermediate_size": sizes.mlp,
        "num_hidden_layers": num_layers,
        "num_attention_heads": sizes.q_heads,
        "num_key_value_heads": sizes.k_heads,
        "rope_parameters": {"rope_type": "default", "rope_theta": sizes.rope_theta},
    }


M = TypeVar("M", bound=nn.Module)
# What one layer may take; below QUICK_SECONDS a median of REPEATS is affordable too.
MOST_SECONDS, QUICK_SECONDS, REPEATS = 10.0, 0.5, 3
# Frames that the tower reads at once: as the backbone on CUDA, one of OneVision's on a CPU.
CELLS_AT_ONCE = {"cuda": 16 * 729, "cpu": 729}
RATE_SIZE = {"cuda": 4096, "cpu": 512}


@dataclass(frozen=True)
class Prefill:
    """Milliseconds of a prefill, and in which words to say where they are from."""

    ms: float
    how: str


class Prefills:
    """Each prefill timed once, when first asked for: tower, projector and language model of random weights.

    Our rotation inside. nano runs whole; of a larger model one layer of each kind is timed and multiplied by
    their number. Where even that would take long, the time is computed from floating-point operations and
    the rate of a matrix product on this machine, and `how` says so.
    """

    def __init__(self, device: torch.device, *, threads: int) -> None:
        self._device, self._threads = device, threads
        self._known: dict[tuple[object, ...], Prefill] = {}
        self._rates: dict[torch.dtype, float] = {}

    def of(self, case: Case, dtype: torch.dtype) -> Prefill | None:
        """The prefill that a case is a part of; None for a shape that belongs to no model."""
        if case.model is None:
            return None
        key = (case.model, case.batch_size, case.num_frames, case.length, dtype)
        if key not in self._known:
            self._known[key] = self._time(MODELS[case.model], case, dtype)
        return self._known[key]

    def _time(self, sizes: ModelSizes, case: Case, dtype: torch.dtype) -> Prefill:
        whole = sizes.name == "nano"
        frames = case.batch_size * (case.num_frames or 0)
        flops = language_flops(sizes, case.batch_size, case.length)
        cells = frames * sizes.side**2
        tower = tower_flops(sizes, cells)
        rate = self._rate(dtype)
        if flops / sizes.layers / rate > MOST_SECONDS or self._too_large(sizes, dtype):
            seconds = (flops + tower) / rate
            return Prefill(
                1e3 * seconds, f"computed: {(flops + tower) / 1e12:.3g} TFLOP at {rate / 1e9:.3g} GFLOP/s"
            )
        with torch.no_grad():
            seconds = self._language(sizes, case, dtype, whole)
            if frames:
                seconds += self._vision(sizes, frames, dtype, whole)
        if whole:
            return Prefill(1e3 * seconds, "measured whole")
        kinds = f"one language layer x {sizes.layers}"
        if frames:
            kinds += f", one tower layer x {sizes.tower_layers}"
        return Prefill(1e3 * seconds, f"measured: {kinds}" + (" and the projector" if frames else ""))

    def _language(self, sizes: ModelSizes, case: Case, dtype: torch.dtype, whole: bool) -> float:
        layers = sizes.layers if whole else 1
        model = self._built(lambda: language_model(sizes, layers), dtype)
        rows = torch.randn(case.batch_size, case.length, sizes.width, dtype=dtype, device=self._device)
        short = rows[:, : min(64, case.length)]
        model(inputs_embeds=short, use_cache=False)
        spent = self._seconds(lambda: model(inputs_embeds=rows, use_cache=False))
        return spent * sizes.layers / layers

    def _vision(self, sizes: ModelSizes, frames: int, dtype: torch.dtype, whole: bool) -> float:
        layers = sizes.tower_layers if whole else 1
        tower = self._built(lambda: vision_tower(sizes, layers), dtype)
        project = self._built(lambda: projector(sizes), dtype)
        chunk = min(frames, max(1, CELLS_AT_ONCE[self._device.type] // sizes.side**2))
        size = sizes.image_size
        pixels = torch.randn(chunk, 3, size, size, dtype=dtype, device=self._device)
        embeddings = self._seconds(lambda: tower_states(tower, pixels, 0))
        spent = self._seconds(lambda: tower_states(tower, pixels, layers)) - embeddings
        hidden = tower_states(tower, pixels, layers)
        rest = self._seconds(lambda: project(hidden))
        return (embeddings + spent * sizes.tower_layers / layers + rest) * frames / chunk

    def _built(self, build: Callable[[], M], dtype: torch.dtype) -> M:
        with torch.device(self._device):
            return build().to(dtype).eval()

    def _seconds(self, call: Callable[[], object]) -> float:
        """Once, and REPEATS times more where that is quick: the median then leaves out the first."""
        first = self._once(call)
        if first > QUICK_SECONDS:
            return first
        return quantile([self._once(call) for _ in range(REPEATS)], 0.5)

    def _once(self, call: Callable[[], object]) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        clock = time.process_time if self._threads == 1 and self._device.type == "cpu" else time.perf_counter
        begin = clock()
        call()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return clock() - begin

    def _rate(self, dtype: torch.dtype) -> float:
        """Floating-point operations per second of a square matrix product."""
        if dtype not in self._rates:
            size = RATE_SIZE[self._device.type]
            a = torch.randn(size, size, device=self._device).to(dtype)
            self._rates[dtype] = 2 * size**3 / self._seconds(lambda: a @ a)
        return self._rates[dtype]

    def _too_large(self, sizes: ModelSizes, dtype: torch.dtype) -> bool:
        """Whether the weights of one layer would take more than a quarter of the free memory."""
        weights = _layer_weights(sizes) * dtype.itemsize
        return 4 * weights > free_bytes(str(self._device))


def language_flops(sizes: ModelSizes, batch_size: int, length: int) -> float:
    """Two per weight and token, and the lower half of the two products of attention."""
    tokens = batch_size * length
    return float(sizes.layers * (2 * tokens * _layer_weights(sizes) + 2 * tokens * length * sizes.width))


def tower_flops(sizes: ModelSizes, cells: int) -> float:
    """Two per weight and cell of the tower's layers, the two products of attention, and the projector."""
    width = sizes.tower_width
    layer = 2 * (4 * width**2 + 2 * width * sizes.tower_mlp) + 4 * sizes.side**2 * width
    projector = 2 * (width * sizes.width + sizes.width**2)
    return float(cells * (sizes.tower_layers * layer + projector))


def _layer_weights(sizes: ModelSizes) -> int:
    keys = sizes.k_heads * sizes.head_size
    return 2 * sizes.width**2 + 2 * sizes.width * keys + 3 * sizes.width * sizes.mlp


def language_model(sizes: ModelSizes, num_layers: int) -> Qwen2Model:
    """Random layers of the model's sizes, run by our rotation as in the backbone."""
    model = Qwen2Model(Qwen2Config(vocab_size=8, **_language_sizes(sizes, num_layers)))
    model.set_attn_implementation("sdpa")
    fit_kernels(model)
    return model


def vision_tower(sizes: ModelSizes, num_layers: int) -> SiglipVisionModel:
    """Random layers of the tower's sizes."""
    tower = SiglipVisionModel(SiglipVisionConfig(**_tower_sizes(sizes, num_layers)))
    tower.set_attn_implementation("sdpa")
    return tower


def projector(sizes: ModelSizes) -> nn.Module:
    """The two linear layers between them."""
    return LlavaOnevisionMultiModalProjector(
        LlavaOnevisionConfig(
            vision_config={"model_type": "siglip_vision_model", "hidden_size": sizes.tower_width},
            text_config={"model_type": "qwen2", "hidden_size": sizes.width},
        )
    )
