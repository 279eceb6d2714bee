"""The parts of a checkpoint held against each other before anything is loaded: JSON and weight headers alone.

    tensors = read_tensors(folder)                 # name -> Tensor(shape, dtype, num_bytes, file)
    check_parts(folder, tensors)

Configuration, weights, tokenizer, processor, generation settings and chat template often come from different
hands. What contradicts the configuration would else end as a wrong answer, or deep within a library.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vidllava.backbone.folders import config_path, part_of, read_json
from vidllava.backbone.settings import preset_of
from vidllava.errors import ModelError
from vidllava.prompting.template import TEMPLATES, Control

_HEADER_LIMIT_BYTES = 100_000_000  # safetensors' own limit
_WHOLE_CHECKPOINT = "use the files of one checkpoint"


@dataclass(frozen=True)
class Tensor:
    """One tensor of a weights file, as its header tells it."""

    shape: tuple[int, ...]
    dtype: str
    """As safetensors spells it: F32, BF16, ..."""
    num_bytes: int
    file: str


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the whole model in ``folder``. Raises ModelError for files that are missing or torn."""
    index = folder / "model.safetensors.index.json"
    table = _weight_map(index) if index.exists() else {}
    found: dict[str, Tensor] = {}
    for name in sorted(set(table.values())) or ["model.safetensors"]:
        if Path(name).name != name:
            raise ModelError(
                index, f"names a file outside the folder: {name!r}", "download the model from its own place"
            )
        path = folder / name
        if not path.exists():
            pickled = sorted(p.name for p in folder.glob("*") if p.suffix in {".bin", ".pt", ".pth", ".pkl"})
            hint = "is a pickle and is not loaded: convert it to safetensors"
            raise ModelError(
                folder, f"no {name}", f"{pickled[0]} {hint}" if pickled else "download the model again"
            )
        found |= read_header(path)
    lost = sorted(name for name in table if name not in found or found[name].file != table[name])
    if lost:
        what = f"says that {lost[0]} is in {table[lost[0]]}, which does not hold it"
        raise ModelError(index, what, "download the checkpoint again")
    return found


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file: an 8-byte length, a JSON header, then the data.

    Raises ModelError unless header length, header and file size agree.
    """
    if not path.is_file():
        raise ModelError(path, "not a regular file" if path.exists() else "no such file", "download it again")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start.startswith(b"version "):
            raise ModelError(path, "is a Git LFS pointer, not weights", "run: git lfs pull")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, _HEADER_LIMIT_BYTES):
            raise ModelError(path, f"is not a safetensors file ({size} bytes)", "download it again")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            found = {name: _tensor(entry, path.name) for name, entry in header.items()}
            end = max(entry["data_offsets"][1] for entry in header.values())
        except (ValueError, TypeError, KeyError, AttributeError, UnicodeDecodeError):
            raise ModelError(path, "has a damaged safetensors header", "download it again") from None
    if 8 + length + end != size:
        raise ModelError(
            path, f"is torn: {size} bytes, its header promises {8 + length + end}", "download it again"
        )
    return found


def _tensor(entry: Mapping[str, Any], file: str) -> Tensor:
    first, last = entry["data_offsets"]
    return Tensor(tuple(int(size) for size in entry["shape"]), str(entry["dtype"]), last - first, file)


def _weight_map(index: Path) -> dict[str, str]:
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(v, str) for v in table.values()):
        raise ModelError(index, "has no weight_map of tensor names to files", "download it again")
    return table


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
    config = read_json(config_path(folder))
    if config.get("model_type") != "llava_onevision" or config.get("quantization_config"):
        return  # refused elsewhere, with a reason of its own
    named = {plain_name(name): (name, tensor) for name, tensor in tensors.items()}
    _check_tower_layer(folder, config)
    _check_shapes(folder, config, named)
    rows = _embedding_rows(config, named)
    if rows is not None:
        _check_tokenizer(folder, config, rows)
        _check_generation(folder, rows)
    _check_image_size(folder, config)
    _check_template(folder)


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
    cells = (side // patch) ** 2 if side and patch else None
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
    path = part_of(folder, "tokenizer.json")
    if not path.is_file():
        return  # reported when it is read
    status = path.stat()
    highest, token, controls = _vocabulary(path, status.st_size, status.st_mtime_ns)
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


@lru_cache(maxsize=8)
def _vocabulary(path: Path, _size_bytes: int, _mtime: int) -> tuple[int, str, dict[str, int]]:
    """(highest id, its token, ids of the added tokens) of a ``tokenizer.json``."""
    content = read_json(path)
    try:
        entries = content["model"]["vocab"]
        vocabulary = entries if isinstance(entries, dict) else {one[0]: at for at, one in enumerate(entries)}
        added = {str(one["content"]): int(one["id"]) for one in content.get("added_tokens") or ()}
        token, highest = max({**vocabulary, **added}.items(), key=lambda item: item[1])
    except (KeyError, TypeError, ValueError, IndexError):
        raise ModelError(path, "is not a tokenizer of the tokenizers library", "download it again") from None
    return highest, token, added


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


def _check_template(folder: Path) -> None:
    """The checkpoint's own chat template, where it has one, speaks as its preset does."""
    template = TEMPLATES[preset_of(folder).template]
    opening = template.before["user"]
    marks = [piece.name for piece in opening if isinstance(piece, Control)] or [str(opening[0]).strip()]
    path, text = _chat_template(folder)
    if text and not all(mark in text for mark in marks):
        what = f"is not {template.name}, in which this model's preset speaks: it has no {marks[0]!r}"
        raise ModelError(path, what, "name the preset that the model was trained with in vidllava.json")


def _chat_template(folder: Path) -> tuple[Path, str]:
    path = part_of(folder, "chat_template.jinja")
    if path.is_file():
        return path, path.read_text(encoding="utf-8", errors="replace")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        path = part_of(folder, name)
        text = read_json(path).get("chat_template") if path.is_file() else None
        if isinstance(text, list):  # several, by name
            text = next((one.get("template") for one in text if one.get("name") == "default"), None)
        if isinstance(text, str):
            return path, text
    return folder, ""
