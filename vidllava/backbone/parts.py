"""The parts of a checkpoint held against each other before anything is loaded: JSON and weight headers alone.

    check_parts(folder, read_tensors(folder))

Configuration, weights, tokenizer, processor, generation settings and chat template often come from different
hands. What contradicts the configuration would else end as a wrong answer, or deep within a library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vidllava.backbone.folders import part_of, read_json
from vidllava.backbone.headers import Tensor, vocabulary
from vidllava.backbone.settings import family_and_preset, own_template, read_config, stored_config
from vidllava.backbone.tokenizer_model import tokenizer_json
from vidllava.errors import ModelError
from vidllava.models.original import hf_name

_WHOLE_CHECKPOINT = "use the files of one checkpoint"


def plain_name(name: str) -> str:
    """The name of a tensor, whichever version of transformers wrote it."""
    name = name.removeprefix("model.")
    name = name.replace("language_model.lm_head.", "lm_head.", 1)
    name = name.replace("language_model.model.", "language_model.", 1)
    return name.replace("vision_tower.vision_model.", "vision_tower.", 1)


def check_parts(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise ModelError for parts of the model in ``folder`` that contradict each other.

    ``folder`` may be an adapter's; ``tensors`` are those of the whole model under it.
    """
    config = read_config(folder)
    if config.get("quantization_config"):
        return  # refused elsewhere, with a reason of its own
    is_original = stored_config(folder) is not None
    named = {
        plain_name((hf_name(name) or name) if is_original else name): (name, tensor)
        for name, tensor in tensors.items()
    }
    _check_tower_layer(folder, config)
    _check_shapes(folder, config, named)
    rows = _embedding_rows(config, named)
    if rows is not None:
        _check_tokenizer(folder, config, rows)
        _check_generation(folder, rows)
    _check_image_size(folder, config)
    own_template(folder, family_and_preset(folder, config)[1])


def _section(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}


def _check_shapes(folder: Path, config: Mapping[str, Any], named: Mapping[str, tuple[str, Tensor]]) -> None:
    """Tensors against the sizes in the configuration. Sizes that it leaves out are not guessed."""
    wrong = [
        (*named[name], shape, keys)
        for name, shape, keys in _expected(config, named)
        if name in named
        and (
            len(named[name][1].shape) != len(shape)
            or any(
                size is not None and size != found
                for size, found in zip(shape, named[name][1].shape, strict=True)
            )
        )
    ]
    if not wrong:
        return
    name, tensor, shape, keys = wrong[0]
    asked = ", ".join("any" if size is None else str(size) for size in shape)
    more = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
    what = f"{name} is {list(tensor.shape)}, the configuration asks for [{asked}] ({keys}){more}"
    raise ModelError(folder, what, _WHOLE_CHECKPOINT)


def _expected(
    config: Mapping[str, Any], named: Mapping[str, tuple[str, Tensor]]
) -> Iterator[tuple[str, tuple[int | None, ...], str]]:
    """(plain name, shape, the configuration's keys that say so); None is a size that is not given."""
    text, vision = _section(config, "text_config"), _section(config, "vision_config")
    width, rows = _size(text, "hidden_size"), _size(text, "vocab_size")
    yield "language_model.embed_tokens.weight", (rows, width), "vocab_size, hidden_size"
    yield "lm_head.weight", (rows, width), "vocab_size, hidden_size"
    yield "language_model.norm.weight", (width,), "hidden_size"
    heads, pairs = _size(text, "num_attention_heads"), _size(text, "num_key_value_heads")
    head = _size(text, "head_dim") or (width // heads if width and heads else None)
    queries, keys = _product(heads, head), _product(pairs, head)
    inner = _size(text, "intermediate_size")
    for prefix in _layers(named, "language_model.layers."):
        attention = "num_attention_heads, num_key_value_heads, hidden_size"
        yield f"{prefix}self_attn.q_proj.weight", (queries, width), attention
        yield f"{prefix}self_attn.k_proj.weight", (keys, width), attention
        yield f"{prefix}self_attn.v_proj.weight", (keys, width), attention
        yield f"{prefix}self_attn.o_proj.weight", (width, queries), attention
        yield f"{prefix}mlp.gate_proj.weight", (inner, width), "intermediate_size, hidden_size"
        yield f"{prefix}mlp.up_proj.weight", (inner, width), "intermediate_size, hidden_size"
        yield f"{prefix}mlp.down_proj.weight", (width, inner), "intermediate_size, hidden_size"
    seen, patch = _size(vision, "hidden_size"), _size(vision, "patch_size")
    side, deep = _size(vision, "image_size"), _size(vision, "intermediate_size")
    colours = _size(vision, "num_channels")
    class_token = int(vision.get("model_type") == "clip_vision_model")
    cells = (side // patch) ** 2 + class_token if side and patch else None
    tower = "vision_tower."
    kernel = (seen, colours, patch, patch)
    yield f"{tower}embeddings.patch_embedding.weight", kernel, "patch_size, hidden_size"
    yield f"{tower}embeddings.position_embedding.weight", (cells, seen), "image_size, patch_size, hidden_size"
    for prefix in _layers(named, f"{tower}encoder.layers."):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield f"{prefix}self_attn.{part}.weight", (seen, seen), "vision_config.hidden_size"
        yield f"{prefix}mlp.fc1.weight", (deep, seen), "vision_config.intermediate_size, hidden_size"
        yield f"{prefix}mlp.fc2.weight", (seen, deep), "vision_config.intermediate_size, hidden_size"
    taken = config.get("vision_feature_layer", -1)
    read = _product(seen, len(taken) if isinstance(taken, list) else 1)
    yield "multi_modal_projector.linear_1.weight", (width, read), "hidden_size of text and vision"
    yield "multi_modal_projector.linear_2.weight", (width, width), "hidden_size of the text"
    yield "image_newline", (width,), "hidden_size of the text"


def _layers(named: Mapping[str, object], prefix: str) -> list[str]:
    numbers = {name[len(prefix) :].partition(".")[0] for name in named if name.startswith(prefix)}
    return [f"{prefix}{number}." for number in sorted(numbers, key=lambda text: (len(text), text))]


def _size(section: Mapping[str, Any], key: str) -> int | None:
    value = section.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _product(*sizes: int | None) -> int | None:
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def _embedding_rows(config: Mapping[str, Any], named: Mapping[str, tuple[str, Tensor]]) -> int | None:
    found = named.get("language_model.embed_tokens.weight")
    if found is not None and found[1].shape:
        return found[1].shape[0]
    return _size(_section(config, "text_config"), "vocab_size")


def _check_tower_layer(folder: Path, config: Mapping[str, Any]) -> None:
    depth = _size(_section(config, "vision_config"), "num_hidden_layers")
    taken = config.get("vision_feature_layer", -1)
    for layer in taken if isinstance(taken, list) else [taken]:
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise ModelError(folder, f"vision_feature_layer is {taken!r}, not a layer's number", "-1")
        if depth is not None and not -depth - 1 <= layer <= depth:
            what = f"vision_feature_layer is {layer}, and the tower has {depth} layers"
            raise ModelError(folder, what, f"one of {-depth - 1} to {depth}")
    if taken == []:
        raise ModelError(folder, "vision_feature_layer is an empty list, not a layer's number", "-1")


def _check_tokenizer(folder: Path, config: Mapping[str, Any], rows: int) -> None:
    """Every token id has an embedding, and the picture's token is the one that the configuration names."""
    path = tokenizer_json(folder)
    if not path.is_file():
        return  # reported when it is read
    highest, token, controls = vocabulary(path)
    if highest >= rows:
        what = f"its tokenizer has the id {highest} ({token!r}), the embeddings have {rows} rows"
        raise ModelError(folder, what, "resize and train the embeddings, or use the tokenizer of the weights")
    for kind in ("image", "video"):
        own = controls.get(f"<{kind}>")
        for key in (f"{kind}_token_id", f"{kind}_token_index"):
            value = config.get(key)
            if isinstance(value, int) and own not in (None, value):
                what = f"{key} is {value}, and <{kind}> is {own} in its tokenizer"
                raise ModelError(folder, what, _WHOLE_CHECKPOINT)


def _check_generation(folder: Path, rows: int) -> None:
    """The tokens that end, pad or begin an answer exist."""
    path = part_of(folder, "generation_config.json")
    content = read_json(path) if path.is_file() else {}
    for key in ("eos_token_id", "pad_token_id", "bos_token_id"):
        value = content.get(key)
        for one in value if isinstance(value, list) else [value]:
            if one is not None and (isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < rows):
                what = f"{key} is {json.dumps(one)}, and the embeddings have {rows} rows"
                raise ModelError(path, what, _WHOLE_CHECKPOINT)


def _check_image_size(folder: Path, config: Mapping[str, Any]) -> None:
    """The processor's pictures are as large as the tower's."""
    side = _size(_section(config, "vision_config"), "image_size")
    path = part_of(folder, "preprocessor_config.json", "processor_config.json")
    content = read_json(path) if path.is_file() else {}
    if path.name == "processor_config.json":
        content = _section(content, "image_processor")
    size = _section(content, "size")
    found = (_size(size, "height"), _size(size, "width"))
    if side is not None and None not in found and found != (side, side):
        what = f"its pictures are {found[0]} x {found[1]}, the tower's image_size is {side}"
        raise ModelError(path, what, _WHOLE_CHECKPOINT)
