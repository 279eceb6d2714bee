"""LoRA: what is trained is small, is saved in peft's own format, and comes back as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlavaOnevisionForConditionalGeneration

from tests.tiny import tiny_checkpoint
from vidllava.backbone.adapter import LoraOptions, add_adapter, merge_adapter
from vidllava.backbone.load import load_backbone
from vidllava.backbone.locate import locate
from vidllava.backbone.model import Backbone
from vidllava.backbone.settings import Tuning
from vidllava.backbone.splice import PackedBatch, SampleInput, VisualInput, collate
from vidllava.errors import ModelError, UsageError
from vidllava.prompting.conversation import IGNORE, SLOT, TokenizedPrompt
from vidllava.visuals.planner import VisualPlanner

OPTIONS = LoraOptions(modules=("llm",), rank=4, alpha=8.0, dropout=0.0)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("base"), preset="nano")


def batch(backbone: Backbone) -> PackedBatch:
    size = backbone.settings.image_size
    pixels = torch.arange(2 * 3 * size * size, dtype=torch.int64).remainder(251).to(torch.uint8)
    visual = VisualInput(pixels.view(2, 3, size, size), VisualPlanner.of(backbone.settings).video(2))
    ids = (10, SLOT, 20, 30, 40)
    return collate([SampleInput(TokenizedPrompt(ids, (IGNORE, IGNORE, IGNORE, 30, 40)), (visual,))])


def trained(base: Path, options: LoraOptions = OPTIONS, *, whole: bool = True) -> Backbone:
    """A model with an adapter that has learnt something, and so has its projector."""
    torch.manual_seed(0)
    backbone = load_backbone(str(base), device="cpu")
    for name, parameter in backbone.hf.named_parameters():
        parameter.requires_grad_(whole and "multi_modal_projector" in name)
    add_adapter(backbone, options, base=str(base))
    learning = [p for p in backbone.hf.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter in learning:
            parameter += 0.05 * torch.randn_like(parameter)
    return backbone


def logits(backbone: Backbone) -> torch.Tensor:
    with torch.no_grad():
        return backbone(batch(backbone)).logits


def test_a_fresh_adapter_changes_nothing_and_only_it_learns(base: Path):
    plain = load_backbone(str(base), device="cpu")
    backbone = load_backbone(str(base), device="cpu")
    backbone.hf.requires_grad_(False)
    add_adapter(backbone, OPTIONS, base=str(base))
    assert torch.equal(logits(backbone), logits(plain))
    names = [name for name, p in backbone.named_parameters() if p.requires_grad]
    assert names
    assert all(".lora_" in name and "language_model" in name for name in names)
    backbone(batch(backbone)).loss.backward()
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)


@pytest.mark.parametrize("modules", [("llm",), ("vision", "projector", "llm")], ids=["llm", "all"])
def test_it_comes_back_as_it_was_merged_or_not(base: Path, tmp_path: Path, modules: tuple[str, ...]):
    backbone = trained(base, LoraOptions(modules=modules, rank=4, dropout=0.0), whole=modules == ("llm",))
    assert ("vision" in modules) == any(
        "vision" in n for n, p in backbone.named_parameters() if ".lora_" in n
    )
    wanted = logits(backbone)
    assert not torch.allclose(wanted, logits(load_backbone(str(base), device="cpu")), atol=1e-3)
    backbone.save(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    beside = load_backbone(str(tmp_path), device="cpu", merge=False)
    assert torch.equal(logits(beside), wanted)
    assert {n for n, p in beside.named_parameters() if p.requires_grad} == {
        n for n, p in backbone.named_parameters() if p.requires_grad
    }
    merged = load_backbone(str(tmp_path), device="cpu")
    assert not any(".lora_" in name for name, _ in merged.named_parameters())
    torch.testing.assert_close(logits(merged), wanted, rtol=1e-4, atol=1e-4)


def test_the_folder_is_small_and_holds_the_projector(base: Path, tmp_path: Path):
    trained(base).save(tmp_path)
    names = set(load_file(tmp_path / "adapter_model.safetensors"))
    assert "base_model.model.model.multi_modal_projector.linear_2.bias" in names
    assert all(".lora_" in name or "multi_modal_projector" in name for name in names)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["modules_to_save"] == [
        "multi_modal_projector"
    ]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_plain_peft_and_plain_transformers_load_it(base: Path, tmp_path: Path):
    from peft import PeftModel

    backbone = trained(base)
    backbone.save(tmp_path)
    merge_adapter(backbone)
    ours = backbone.hf.state_dict()
    hf = LlavaOnevisionForConditionalGeneration.from_pretrained(base)
    merged = PeftModel.from_pretrained(hf, str(tmp_path)).merge_and_unload().state_dict()
    assert merged.keys() == ours.keys()
    assert all(torch.allclose(value, ours[name], atol=1e-6) for name, value in merged.items())
    plain = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path)
    ids = torch.tensor([[10, 20, 30, 40]])
    with torch.no_grad():
        torch.testing.assert_close(
            plain(input_ids=ids).logits, backbone.hf(input_ids=ids).logits, rtol=1e-4, atol=1e-4
        )


def test_an_adapter_may_stand_on_an_adapter(base: Path, tmp_path: Path):
    trained(base).save(tmp_path / "first")
    second = load_backbone(str(tmp_path / "first"), device="cpu")
    second.hf.requires_grad_(False)
    add_adapter(second, OPTIONS, base=str(tmp_path / "first"))
    wanted = logits(second)
    second.save(tmp_path / "second")
    torch.testing.assert_close(logits(load_backbone(str(tmp_path / "second"), device="cpu")), wanted)
    config = tmp_path / "first" / "adapter_config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"base_model_name_or_path": str(tmp_path / "second")}))
    with pytest.raises(ModelError, match="stands on more than 8 adapters"):
        locate(str(tmp_path / "second"))


def test_what_it_changes_of_the_model_besides_weights_comes_back(base: Path, tmp_path: Path):
    backbone = trained(base)
    backbone.tune(Tuning(rope_factor=2.0, pool_stride=3))
    wanted = logits(backbone)
    backbone.save(tmp_path)
    again = load_backbone(str(tmp_path), device="cpu", merge=False)
    assert again.settings.preset.pool_stride == 3
    assert (again.settings.trained_context, again.settings.least_factor) == (512, 2.0)
    assert torch.equal(logits(again), wanted)


Q_AND_V = r".*language_model.*\.(q_proj|v_proj)"
PEFT: dict[str, dict[str, object]] = {
    "plain": {"target_modules": Q_AND_V},
    "by name": {"target_modules": ["q_proj", "v_proj"]},
    "rslora": {"target_modules": Q_AND_V, "use_rslora": True},
    "dora": {"target_modules": Q_AND_V, "use_dora": True},
    "all linear": {"target_modules": "all-linear"},
    "patterns": {
        "target_modules": Q_AND_V,
        "rank_pattern": {".*layers.0.*q_proj": 8},
        "alpha_pattern": {".*layers.0.*q_proj": 32},
    },
    "some layers": {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "projector": {"target_modules": Q_AND_V, "modules_to_save": ["multi_modal_projector"]},
    "embeddings whole": {"target_modules": Q_AND_V, "modules_to_save": ["embed_tokens"]},
    "bias": {"target_modules": Q_AND_V, "bias": "lora_only"},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "single tokens": {"target_modules": Q_AND_V, "trainable_token_indices": [5, 6]},
}
NOT_SERVED = {
    "bias": 'LoRA adapter with bias "lora_only"',
    "embeddings": r"adds LoRA to the embeddings \(model.language_model.embed_tokens\)",
    "single tokens": r"with trainable_token_indices \[5, 6\]",
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("kind", PEFT)
def test_a_folder_as_peft_saves_it_is_served_or_refused_with_the_reason(
    base: Path, tmp_path: Path, kind: str
):
    """Configuration, tokenizer and processor come from the base; logits are those of peft itself."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    hf = LlavaOnevisionForConditionalGeneration.from_pretrained(base)
    made = get_peft_model(hf, LoraConfig(r=4, lora_alpha=8, **PEFT[kind])).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name or "lora_embedding_B" in name or "modules_to_save" in name:
                parameter += 0.05 * torch.randn_like(parameter)
    made.save_pretrained(str(tmp_path))
    assert {path.suffix for path in tmp_path.iterdir()} <= {".json", ".safetensors", ".md"}
    assert not (tmp_path / "tokenizer.json").exists()
    if kind in NOT_SERVED:
        with pytest.raises(ModelError, match=NOT_SERVED[kind]):
            load_backbone(str(tmp_path), device="cpu")
        return
    ids = torch.tensor([[10, 20, 30, 40]])
    with torch.no_grad():
        wanted = made(input_ids=ids).logits
        found = load_backbone(str(tmp_path), device="cpu").hf(input_ids=ids).logits
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def test_a_plain_adapter_exports_to_a_whole_model(base: Path, tmp_path: Path):
    from vidllava.backbone.convert import export

    trained(base).save(tmp_path / "adapter")
    for path in (tmp_path / "adapter").iterdir():
        if not path.name.startswith("adapter_"):
            path.unlink()
    export(tmp_path / "adapter", tmp_path / "whole")
    torch.testing.assert_close(
        logits(load_backbone(str(tmp_path / "whole"), device="cpu")),
        logits(load_backbone(str(tmp_path / "adapter"), device="cpu")),
    )


def _rename_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "other.safetensors")


def _pickle_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def _no_base(folder: Path) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": None}))


def _other_kind(folder: Path) -> None:
    path = folder / "adapter_config.json"
    path.write_text(path.read_text().replace('"LORA"', '"IA3"'))


def _other_base(folder: Path) -> None:
    path = folder / "adapter_config.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"base_model_name_or_path": str(folder / "nothing")}))


def _other_rank(folder: Path) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"r": 8}))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (_rename_weights, "adapter_model.safetensors: no such file"),
        (_pickle_weights, "adapter_model.bin: is a pickle and is not loaded"),
        (_no_base, "is an adapter that does not name its base"),
        (_other_kind, "is a IA3 adapter"),
        (_other_base, "nothing, which cannot be used: no such folder"),
        (_other_rank, r"has \(4, 48\) for base_model.model"),
    ],
    ids=["weights", "pickle", "no base", "kind", "base", "rank"],
)
def test_an_adapter_that_is_not_whole_or_has_no_base_is_one_line(
    base: Path, tmp_path: Path, damage, what: str
):
    trained(base).save(tmp_path / "adapter")
    damage(tmp_path / "adapter")
    with pytest.raises(ModelError, match=what):
        load_backbone(str(tmp_path / "adapter"), device="cpu")


def test_without_peft_the_package_to_install_is_named(base: Path, tmp_path: Path, monkeypatch):
    trained(base).save(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs peft \(pip install 'vidllava\[lora\]'\)"):
        locate(str(tmp_path))


def test_a_moved_base_is_told_before_torch_is_needed(base: Path, tmp_path: Path):
    moved = tmp_path / "base"
    shutil.copytree(base, moved)
    trained(moved).save(tmp_path / "adapter")
    shutil.rmtree(moved)
    with pytest.raises(ModelError, match=r"base_model_name_or_path in adapter_config\.json"):
        locate(str(tmp_path / "adapter"))


def test_additions_that_the_forward_pass_never_reads_do_not_learn(base: Path):
    """Without a gradient they would make distributed training wait for ever."""
    backbone = load_backbone(str(base), device="cpu")
    backbone.hf.requires_grad_(False)
    backbone.hf.config.vision_feature_layer = -2
    add_adapter(backbone, LoraOptions(modules=("vision",), rank=4, dropout=0.0), base=str(base))
    backbone(batch(backbone)).loss.backward()
    learning = [(name, p) for name, p in backbone.named_parameters() if p.requires_grad]
    assert learning
    assert [name for name, p in learning if p.grad is None] == []
