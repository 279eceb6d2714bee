"""What lmms-lab's and transformers' configurations have in common: towers, options, rotary scale, grids."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vidllava.errors import ModelError
from vidllava.models.original_names import hf_name, original_name


@dataclass(frozen=True)
class Tower:
    """A published tower: what neither the configuration nor the shapes of its tensors tell."""

    name: str
    model_type: str
    side: int
    """Height and width of its pictures in pixels."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    more: Mapping[str, Any]

    def side_of(self, grid: int, patch: int) -> int:
        """Height and width in pixels where there are ``grid`` x ``grid`` patches: its own where that fits."""
        return self.side if self.side // patch == grid else grid * patch


CLIP = Tower(
    "openai/clip-vit-large-patch14-336",
    "clip_vision_model",
    336,
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
    {"hidden_act": "quick_gelu", "projection_dim": 768},
)
SIGLIP = Tower(
    "google/siglip-so400m-patch14-384",
    "siglip_vision_model",
    384,
    (0.5, 0.5, 0.5),
    (0.5, 0.5, 0.5),
    {"vision_use_head": False},
)
TOWERS = (CLIP, SIGLIP)
# Of both towers: a number of heads leaves no trace in a shape.
TOWER_HEADS = 16

FEATURES = {"patch": "default", "cls_patch": "full"}
# Of a language model, besides sizes and rotary scale, where they are given ...
_OF_TEXT = (
    "attention_bias",
    "attention_dropout",
    "head_dim",
    "hidden_act",
    "initializer_range",
    "max_window_layers",
    "mlp_bias",
    "rms_norm_eps",
    "use_cache",
    "use_sliding_window",
)
# ... and where None says something: no window, no such token.
_OF_TEXT_OR_NONE = ("sliding_window", "bos_token_id", "eos_token_id", "pad_token_id")
SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
)


def text_options(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: config[key] for key in _OF_TEXT if config.get(key) is not None}
    return found | {key: config[key] for key in _OF_TEXT_OR_NONE if key in config}


def rope_parameters(config: Mapping[str, Any], source: object) -> dict[str, Any]:
    """``rope_parameters`` of transformers 5; a linear factor is the only scale that is read.

    Raises ModelError for another.
    """
    scale = config.get("rope_scaling") or config.get("rope_parameters") or {}
    known = "null, or linear with a factor from 1 on"
    if not isinstance(scale, Mapping):
        raise unread(source, config, "rope_scaling", known)
    theta = config.get("rope_theta") or scale.get("rope_theta") or 10_000.0
    if not _is_from_1(theta):
        raise unread(source, {"rope_theta": theta}, "rope_theta", "a number from 1 on")
    kind = scale.get("rope_type") or scale.get("type") or "default"
    factor: Any = scale.get("factor")
    if kind == "default":
        return {"rope_type": "default", "rope_theta": float(theta)}
    if kind != "linear" or not _is_from_1(factor):
        raise unread(source, {"rope_scaling": dict(scale)}, "rope_scaling", known)
    return {"rope_type": "linear", "factor": float(factor), "rope_theta": float(theta)}


def pinpoints(config: Mapping[str, Any], side: int, source: object) -> list[list[int]]:
    """(height, width) in pixels of the AnyRes grids that a configuration allows; empty where it names none.

    lmms-lab's files hold a list, that list as text, or a range of tiles, ``(1x1),...,(6x6)``
    (llava/mm_utils.py, process_anyres_image). Raises ModelError for anything else.
    """
    given = config.get("image_grid_pinpoints")
    if given is None:
        return []
    if isinstance(given, str):
        ends = [(int(rows), int(columns)) for rows, columns in re.findall(r"\((\d+)x(\d+)\)", given)]
        if ends:
            (top, left), (bottom, right) = ends[0], ends[-1]
            tiles = [(row, column) for row in range(top, bottom + 1) for column in range(left, right + 1)]
            return [[side * row, side * column] for row, column in tiles]
        try:
            given = ast.literal_eval(given)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            given = None
    pairs: list[Any] = list(given) if isinstance(given, list | tuple) else [given]
    if all(isinstance(one, list | tuple) and len(one) == 2 and all(map(_is_count, one)) for one in pairs):
        return [list(one) for one in pairs]
    raise unread(source, config, "image_grid_pinpoints", "a list of [height, width], or (1x1),...,(6x6)")


class Shapes:
    """Shapes of stored tensors by their names in memory."""

    def __init__(self, tensors: Mapping[str, Any], source: object) -> None:
        self.source = source
        named = ((hf_name(name), tuple(tensor.shape)) for name, tensor in tensors.items())
        self.found = {name: shape for name, shape in named if name is not None}

    def of(self, name: str, rank: int) -> tuple[int, ...]:
        """The shape of a tensor that must be there, with this many axes."""
        shape = self.found.get(name)
        if shape is None:
            raise ModelError(
                self.source, f"the weights hold no {original_name(name)}", "download the checkpoint again"
            )
        if len(shape) != rank:
            raise ModelError(
                f"tensor {original_name(name)}",
                f"has shape {shape}, wanted are {rank} axes",
                "use the files of one checkpoint",
            )
        return shape

    def layers(self, prefix: str) -> int:
        """How many layers are stored under ``prefix``, which must be numbered from 0 without a gap."""
        pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
        numbers = {int(match[1]) for name in self.found if (match := pattern.match(name))}
        lost = min(set(range(max(numbers, default=0) + 1)) - numbers, default=None)
        if lost is not None:
            name = original_name(f"{prefix}{lost}.")
            raise ModelError(self.source, f"the weights hold no {name}*", "download the checkpoint again")
        return len(numbers)


def _is_from_1(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value < math.inf


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def number(config: Mapping[str, Any], key: str, source: object) -> int:
    """A whole number from 1 on that must be there."""
    value = config.get(key)
    if not _is_count(value):
        raise unread(source, config, key, "a whole number from 1 on")
    return int(value)  # type: ignore[arg-type]


def unread(source: object, config: Mapping[str, Any], key: str, known: str) -> ModelError:
    return ModelError(source, f"{key} is {config.get(key)!r}", f"read is: {known}")
