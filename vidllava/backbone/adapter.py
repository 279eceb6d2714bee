"""LoRA: low-rank additions to some layers, trained and saved without the model they belong to.

    add_adapter(backbone, LoraOptions(modules=("llm",)), base="nano")      # from now on these learn
    backbone.save(folder)                                                 # adapter_model.safetensors
    load_adapter(backbone, folder)                                        # onto the base, as it was saved
    merge_adapter(backbone)                                               # into the base's own weights

peft does the arithmetic. The folder is peft's own format: `PeftModel.from_pretrained(base, folder)` reads it.
Beside the additions it holds, whole, every module that learns in full (the projector).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from vidllava.backbone.folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from vidllava.backbone.model import Backbone
from vidllava.backbone.tower import freeze_unused
from vidllava.errors import ModelError

_PREFIX = "base_model.model."  # peft's names for the parameters of a wrapped model
_NAME = "default"

# Which linear layers of each module get an addition: all of them, as QLoRA (Dettmers et al. 2023) found best.
_TARGETS = {
    "vision": r"model\.vision_tower\..*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
    "projector": r"model\.multi_modal_projector\.linear_[12]",
    "llm": r"model\.language_model\.layers\.\d+\..*\.([qkvo]_proj|(gate|up|down)_proj)",
}
_WHOLE = {"vision": "vision_tower", "projector": "multi_modal_projector"}


@dataclass(frozen=True, kw_only=True)
class LoraOptions:
    """Which modules (vision, projector, llm) get additions of which rank; alpha / rank is their scale."""

    modules: tuple[str, ...] = ("llm",)
    rank: int = 128
    alpha: float = 256.0
    dropout: float = 0.05


class Adapter:
    """What was added to one model: peft's object, and its settings as they are saved."""

    def __init__(self, tuner: LoraModel, config: LoraConfig) -> None:
        self.tuner, self.config = tuner, config

    def save(self, hf: nn.Module, folder: Path) -> None:
        """Write adapter_config.json and adapter_model.safetensors: the additions, and what learns in full."""
        whole = _learning_whole(hf)
        config = copy.deepcopy(self.config)
        config.inference_mode = True
        config.modules_to_save = [_WHOLE[module] for module in whole] or None
        config.save_pretrained(str(folder))
        tensors = {}
        for name, parameter in hf.named_parameters():
            if ".lora_" in name:
                tensors[_key(name)] = parameter
            elif _within(name, config.modules_to_save):
                tensors[_PREFIX + name] = parameter
        saved = {name: p.detach().cpu().contiguous() for name, p in tensors.items()}
        save_file(saved, folder / ADAPTER_WEIGHTS)


def add_adapter(backbone: Backbone, options: LoraOptions, *, base: str) -> None:
    """Add fresh adapters to ``backbone``, which loads later by the name ``base``.

    Parameters keep their ``requires_grad``, so the modules that are not frozen learn beside the
    additions, and are saved with them.
    """
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,  # type: ignore[arg-type]
        lora_dropout=options.dropout,
        target_modules="|".join(f"({_TARGETS[module]})" for module in options.modules),
        base_model_name_or_path=base,
    )
    _inject(backbone, config)


def _inject(backbone: Backbone, config: LoraConfig) -> None:
    learning = {id(p): p.requires_grad for p in backbone.hf.parameters()}
    modules_to_save, config.modules_to_save = config.modules_to_save, None
    tuner = LoraModel(backbone.hf, {_NAME: config}, _NAME)
    config.modules_to_save = modules_to_save
    for name, parameter in backbone.hf.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()  # small beside the model, and small steps must not vanish
        # peft freezes all but the additions, and ours decides what else learns.
        parameter.requires_grad_(learning.get(id(parameter), True))
    freeze_unused(backbone.hf)
    backbone.adapter = Adapter(tuner, config)


def _key(name: str) -> str:
    """What peft calls a parameter of an addition in the file."""
    name = name.replace(f".{_NAME}.", ".").removesuffix(f".{_NAME}")
    return _PREFIX + name.replace(".lora_magnitude_vector.weight", ".lora_magnitude_vector")


def _learning_whole(hf: nn.Module) -> list[str]:
    """The modules of which some weight of the base learns."""
    names = [name for name, p in hf.named_parameters() if p.requires_grad and ".lora_" not in name]
    return [module for module, part in _WHOLE.items() if any(part in name for name in names)]


def _within(name: str, modules: Any) -> bool:
    return any(f".{module}." in f".{name}" for module in modules or ())


def load_adapter(backbone: Backbone, folder: Path) -> None:
    """Add the adapter saved in ``folder`` to its base. What was trained with it may learn on.

    Raises ModelError for an adapter of another kind or for another model.
    """
    config = _read_config(folder)
    try:
        saved = load_file(folder / ADAPTER_WEIGHTS)
    except (OSError, SafetensorError) as fault:
        raise ModelError(
            folder / ADAPTER_WEIGHTS, f"cannot be read: {fault}", "copy it again, or train it again"
        ) from None
    _check_embeddings(backbone, folder, saved)
    for name, parameter in backbone.hf.named_parameters():
        parameter.requires_grad_(_within(name, config.modules_to_save))
    try:
        _inject(backbone, config)
    except ValueError as fault:  # peft's, where no layer of the model has these names
        raise ModelError(
            folder, f"does not fit its base: {fault}", "use the base that it was trained on"
        ) from None
    for key, parameter in _wanted(backbone.hf, config):
        value = saved.pop(key, None)
        if value is None or value.shape != parameter.shape:
            what = "has no" if value is None else f"has {tuple(value.shape)} for"
            raise ModelError(folder, f"{what} {key}", "an adapter of this very base")
        with torch.no_grad():
            parameter.copy_(value)
    if saved:
        raise ModelError(folder, f"has {min(saved)}, which its base has not", "an adapter of this very base")


def _read_config(folder: Path) -> LoraConfig:
    """The adapter's settings, whose kind `locate` has checked."""
    try:
        config = LoraConfig.from_pretrained(str(folder))
    except (TypeError, ValueError, KeyError) as fault:
        raise ModelError(
            folder / ADAPTER_CONFIG, f"cannot be read: {fault}", "copy it again, or train it again"
        ) from None
    assert isinstance(config, LoraConfig)
    config.inference_mode = False
    return config


def _check_embeddings(backbone: Backbone, folder: Path, saved: dict[str, torch.Tensor]) -> None:
    """Refuse additions to the embeddings, and an output layer of its own for a base that ties the two.

    An output layer that equals the embeddings saved beside it is what the base makes of them: it is left out.
    """
    merge = "merge it into its base with peft's merge_and_unload"
    names = [name for name in saved if ".lora_embedding_" in name]
    if names:
        layer = names[0].removeprefix(_PREFIX).partition(".lora_")[0]
        raise ModelError(folder, f"adds LoRA to the embeddings ({layer}), which is not supported", merge)
    head = _PREFIX + "lm_head.weight"
    embeddings: torch.Tensor = backbone.hf.get_input_embeddings().weight
    if head not in saved or backbone.hf.get_output_embeddings().weight is not embeddings:
        return
    beside = saved.get(_PREFIX + "model.language_model.embed_tokens.weight", embeddings)
    if beside.shape != saved[head].shape or not torch.equal(saved[head].float(), beside.detach().float()):
        what = "has an output layer (lm_head) of its own, and its base ties that to the embeddings"
        raise ModelError(folder, what, merge)
    del saved[head]


def _wanted(hf: nn.Module, config: LoraConfig) -> Iterator[tuple[str, nn.Parameter]]:
    """Each parameter that an adapter of this config holds, by its name in the file."""
    for name, parameter in hf.named_parameters():
        if ".lora_" in name:
            yield _key(name), parameter
        elif _within(name, config.modules_to_save):
            # Where a module has both, its own weights lie under the addition.
            yield _PREFIX + name, parameter


def merge_adapter(backbone: Backbone) -> None:
    """Put the additions into the weights they add to; the model is then like any other."""
    assert isinstance(backbone.adapter, Adapter)
    backbone.adapter.tuner.merge_and_unload()
    backbone.adapter = None
