"""Loading of a model, by name or folder, onto a device, every odd weight reported.

backbone = load_backbone("nano")
backbone = load_backbone("checkpoints/mine", device="cuda", dtype="bfloat16")
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available
from transformers.utils import logging as transformers_logging

from vidllava.backbone.completion import rows_wanted
from vidllava.backbone.familiarity import read_world
from vidllava.backbone.folders import is_adapter
from vidllava.backbone.headers import read_tensors
from vidllava.backbone.locate import bases, locate
from vidllava.backbone.memory import Workload, estimate, num_elements, require_fit
from vidllava.backbone.model import Backbone
from vidllava.backbone.settings import read_config, read_settings, stored_config
from vidllava.backbone.tokens import read_codec
from vidllava.errors import ModelError, ResourceError, UsageError, is_allocation_failure
from vidllava.kernels import choose
from vidllava.models import family_of
from vidllava.models.original import KEY_MAPPING, unused
from vidllava.visuals.planner import ModelSettings

SMALL_MODEL_PARAMETERS = 50_000_000
FLASH = {
    "flash_attention_2": is_flash_attn_2_available,
    "flash_attention_3": is_flash_attn_3_available,
}
_SMALLER_WEIGHTS = "--dtype bfloat16, a smaller model, or fewer frames"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str = "auto") -> tuple[torch.device, str]:
    """The device to run on and the reason, for people. Raises UsageError if it is not there."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"CUDA: {torch.cuda.get_device_name()}"
        return torch.device("cpu"), "no CUDA device"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}", "no such kind of device", "auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}", "torch finds no CUDA device here", "--device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name}",
            f"there are {torch.cuda.device_count()} CUDA devices",
            "cpu, or a number below that",
        )
    return device, "as asked"


def choose_dtype(name: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The weights' type and the reason. CPUs without matrix units run bf16 forty times slower than fp32."""
    if name == "auto":
        # Older ones imitate bfloat16, slowly; and the question is about this device, not the current one.
        if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
            return torch.bfloat16, "this GPU computes bfloat16"
        if device.type == "cuda":
            return torch.float16, "this GPU has no bfloat16"
        return torch.float32, "float32 is the fast type on a CPU"
    if name not in DTYPES:
        raise UsageError(f"--dtype {name}", "no such type", f"auto, {', '.join(DTYPES)}")
    return DTYPES[name], "as asked"


def choose_threads(backbone: Backbone) -> int | None:
    """How many CPU threads suit a model; None leaves torch's choice.

    A model of a few million parameters gains nothing from a second thread, and loses much where another
    program holds a core: on two cores, one of them busy, nano answers in 0.1 s with one thread and in 2 s
    with two. OMP_NUM_THREADS goes first.
    """
    few = sum(parameter.numel() for parameter in backbone.parameters()) < SMALL_MODEL_PARAMETERS
    asked = "OMP_NUM_THREADS" in os.environ
    return 1 if few and backbone.device.type == "cpu" and not asked else None


def choose_kernels(device: torch.device) -> tuple[str, str]:
    """The kernels that ``device`` runs, and why. Raises UsageError for an impossible VIDLLAVA_KERNELS."""
    try:
        return choose(device)
    except ValueError as fault:
        variable, _, what = str(fault).partition(": ")
        raise UsageError(variable, what, "auto, torch, or triton on a CUDA device") from None


def load_backbone(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    attn_implementation: str = "sdpa",
    download: bool = False,
    revision: str | None = None,
    pool_first: bool = False,
    merge: bool = True,
    workload: Workload | None = None,
    family: str | None = None,
) -> Backbone:
    """Load the model called ``name`` (a short name, a hub id, a folder, or ``auto``), ready for inference.

    ``pool_first`` pools before the projector's last layer: less work, and equal to rounding only. A LoRA
    adapter's folder is its base with the adapter merged, or beside it where ``merge`` is False. Of ``auto``,
    media unlike what the model was trained on are refused (``check_familiar``). ``workload``: what will
    be asked, which must fit beside the weights. ``family``: make it a checkpoint of that one (training).

    Raises ModelError for a missing, damaged or mismatched checkpoint (first three weights named), UsageError
    for a device or type that is not here, OutOfMemory before anything is allocated that cannot fit.
    """
    place, _ = choose_device(device)
    weights_dtype, _ = choose_dtype(dtype, place)
    choose_kernels(place)
    check_attention(attn_implementation)
    shown, folder = locate(name, download=download, revision=revision)
    settings = read_settings(folder, shown, family)
    codec = read_codec(folder)
    over = [folder, *bases(folder, download=download)] if is_adapter(folder) else [folder]
    _check_memory(shown, over[-1], folder, weights_dtype, place, attn_implementation, workload)
    hf = load_weights(
        over[-1],
        dtype=weights_dtype,
        attn_implementation=attn_implementation,
        config_folder=folder,
        family=family,
    )
    backbone = Backbone(hf, settings, codec)
    for adapter in reversed(over[:-1]):
        from vidllava.backbone.adapter import load_adapter, merge_adapter

        load_adapter(backbone, adapter)
        if merge or adapter != folder:
            merge_adapter(backbone)
    backbone.pool_first = pool_first
    backbone.world, backbone.asked_by_name = read_world(folder), name != "auto"
    try:
        return backbone.to(place).eval()
    except torch.OutOfMemoryError:
        raise ResourceError(shown, f"does not fit in the memory of {place}", "a smaller model") from None


def _check_memory(
    name: str,
    weights: Path,
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    attn_implementation: str,
    workload: Workload | None,
) -> None:
    """Raises OutOfMemory. Weights pass through main memory on their way to a GPU."""
    size = num_elements(tensor.shape for tensor in read_tensors(weights).values()) * dtype.itemsize
    config = config_object(folder)
    if device.type == "cuda":
        require_fit(name, estimate(config, size, itemsize=dtype.itemsize), "cpu", _SMALLER_WEIGHTS)
    need = estimate(
        config,
        size,
        itemsize=dtype.itemsize,
        workload=workload,
        attn_implementation=attn_implementation,
    )
    require_fit(name, need, str(device), _SMALLER_WEIGHTS)


def check_attention(name: str) -> None:
    """Raises UsageError for an attention that transformers does not have, or that needs what is not here."""
    known = ("eager", *sorted(ALL_ATTENTION_FUNCTIONS.valid_keys()))
    flag = f"--attn-implementation {name}"
    if name not in known:
        raise UsageError(flag, "no such attention", ", ".join(word for word in known if "|" not in word))
    if name.startswith("flash_attention") and not FLASH.get(name, lambda: True)():
        raise UsageError(flag, "its package is not installed, or finds no CUDA device", "sdpa")


def check_compiler(device: torch.device) -> None:
    """Raises UsageError where torch.compile has no compiler to work with on ``device``."""
    if device.type == "cuda":
        return
    if shutil.which(os.environ.get("CXX", "g++")) is None and shutil.which("clang++") is None:
        raise UsageError("--compile", "needs a C++ compiler on a CPU", "install g++, or omit it")


def load_weights(
    folder: Path,
    *,
    dtype: torch.dtype,
    attn_implementation: str = "sdpa",
    config_folder: Path | None = None,
    family: str | None = None,
) -> Any:
    """transformers' own model from ``folder``: local files only, safetensors only, nothing left random.

    ``config_folder`` holds another configuration for the same weights, as an adapter's folder does.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # its own report of odd weights; ours is one line
    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    options["ignore_mismatched_sizes"] = True  # reported then, with both shapes, instead of raised without
    options["config"] = config_object(config_folder or folder, family)
    original = stored_config(folder)
    if original is not None:
        options["key_mapping"] = KEY_MAPPING
    try:
        loaded: Any = model_class(folder, family).from_pretrained(
            folder, dtype=dtype, attn_implementation=attn_implementation, **options
        )
    except Exception as fault:  # whatever a checkpoint that is not whole makes transformers raise
        if is_allocation_failure(fault):
            raise
        raise ModelError(
            folder, f"cannot be loaded: {_first_line(fault)}", "download it again; --debug shows where"
        ) from fault
    hf, report = loaded
    for name, found, made in sorted(report["mismatched_keys"]):
        what = f"{name} is {list(found)}, the configuration asks for {list(made)}"
        raise ModelError(folder, what, "use the files of one checkpoint")
    unread = frozenset() if original is None else unused(read_config(folder))
    for what in ("missing_keys", "unexpected_keys"):
        names = sorted({str(key) for key in report[what]} - unread)
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            kind = what.removesuffix("_keys")
            raise ModelError(
                folder, f"{kind} weights: {', '.join(names[:3])}{more}", "use a whole checkpoint"
            )
    if original is not None:
        # Or save_pretrained would turn the mapping round and write lmms-lab's names into our layout.
        hf._weight_conversions = None
        _add_rows(hf)
    return hf


@torch.no_grad()
def _add_rows(hf: Any) -> None:
    """Rows for the placeholders, which lmms-lab's models have no tokens for: what is saved must be whole.

    Means of the others, so that none is ever the likeliest; nothing reads them.
    """
    old = hf.get_input_embeddings().weight.shape[0]
    rows = rows_wanted(hf.config, old)
    if rows is None:
        return
    hf.resize_token_embeddings(rows, mean_resizing=False)
    for layer in (hf.get_input_embeddings(), hf.get_output_embeddings()):
        layer.weight[old:] = layer.weight[:old].float().mean(dim=0).to(layer.weight.dtype)


def model_class(folder: Path, family: str | None = None) -> Any:
    """The class of transformers that holds the weights of the model in ``folder``. Raises ModelError."""
    return getattr(transformers, family_of(read_config(folder, family), folder).hf_class)


def config_object(folder: Path, family: str | None = None) -> Any:
    """The configuration of the model in ``folder`` as transformers' object."""
    try:
        return model_class(folder, family).config_class.from_dict(read_config(folder, family))
    except Exception as fault:  # whatever a configuration makes transformers raise
        if isinstance(fault, ModelError):
            raise
        what = f"its configuration cannot be read: {_first_line(fault)}"
        raise ModelError(folder, what, "download config.json again") from fault


def random_backbone(folder: Path, *, device: str = "cpu", dtype: str = "auto", seed: int = 0) -> Backbone:
    """The architecture of ``folder`` with random weights, for measuring cost and for tests."""
    place, _ = choose_device(device)
    weights_dtype, _ = choose_dtype(dtype, place)
    settings: ModelSettings = read_settings(folder, folder.name)
    config = config_object(folder)
    check_random(folder.name, config, weights_dtype, place)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hf = model_class(folder)._from_config(config, dtype=weights_dtype)
    return Backbone(hf, settings, read_codec(folder)).to(place).eval()


def check_random(name: str, config: Any, dtype: torch.dtype, device: torch.device) -> None:
    """Raises OutOfMemory where a model of ``config`` with random weights cannot fit on ``device``."""
    with torch.device("meta"):
        hf = transformers.AutoModelForImageTextToText.from_config(config, dtype=dtype)
    size = sum(parameter.numel() for parameter in hf.parameters()) * dtype.itemsize
    require_fit(name, estimate(config, size, itemsize=dtype.itemsize), str(device), _SMALLER_WEIGHTS)


def _first_line(fault: BaseException) -> str:
    lines = str(fault).strip().splitlines()
    return lines[0] if lines else type(fault).__name__
