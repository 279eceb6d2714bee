"""What will not fit is refused before it is allocated, with the figures."""

from __future__ import annotations

import resource
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.clips import write_clip
from tests.tiny import tiny_checkpoint
from vidllava.backbone import memory
from vidllava.backbone.answer import answer_question
from vidllava.backbone.load import check_random, load_backbone
from vidllava.backbone.memory import (
    MemoryNeed,
    OutOfMemory,
    Workload,
    estimate,
    free_bytes,
    num_elements,
    require_fit,
)
from vidllava.bench.models import published_config
from vidllava.errors import is_allocation_failure
from vidllava.visuals.question import plan_question

GB = 1_000_000_000


def test_the_weights_of_the_published_models_are_counted_from_their_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needs: list[int] = []
    monkeypatch.setattr(
        "vidllava.backbone.load.require_fit", lambda name, need, *rest: needs.append(need.total)
    )
    for size in ("0.5b", "7b"):
        check_random(size, published_config(size), torch.bfloat16, torch.device("cpu"))
    # Published: 893,618,208 parameters (0.5B, with 26 tower layers) and 8,030,348,832 (7B); two bytes each.
    assert needs[0] / 2 == pytest.approx(0.894e9, rel=0.01)
    assert needs[1] / 2 == pytest.approx(8.03e9, rel=0.01)


def test_a_cache_and_its_factor_of_heads_are_counted_exactly() -> None:
    config = published_config("7b")
    need = estimate(config, 0, itemsize=2, workload=Workload(num_grids=32, num_tokens=6337))
    assert need.cache == 2 * 28 * 4 * 128 * 6337 * 2
    assert need.features == 32 * (729 * 3584 * 2 + 3 * 384 * 384)
    # Past one chunk of the tower more frames need features, and no more of the tower at once.
    more = estimate(config, 0, itemsize=2, workload=Workload(num_grids=64, num_tokens=6337))
    assert more.vision == need.vision
    assert more.features == 2 * need.features
    eager = estimate(config, 0, itemsize=2, workload=Workload(32, 6337), attn_implementation="eager")
    assert eager.prompt - need.prompt == 2 * 28 * 6337**2 * 2


def test_vision_and_prompt_are_not_needed_at_once() -> None:
    assert MemoryNeed(10, 1, 5, 3, 2).total == 18
    assert MemoryNeed(10, 1, 3, 5, 2).total == 18


def test_what_is_just_free_fits_and_a_byte_more_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 5 * GB)
    require_fit("m", MemoryNeed(5 * GB, 0, 0, 0, 0), "cpu")
    with pytest.raises(OutOfMemory) as told:
        require_fit("m", MemoryNeed(5 * GB + 1, 0, 0, 0, 0), "cpu")
    assert str(told.value).startswith("m: needs 5 GB of memory (weights 5 GB), 5 GB are free on cpu (")
    assert told.value.exit_code == 6


def test_the_least_of_machine_container_and_process_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b\n")
    group = tmp_path / "fs/a"
    (group / "b").mkdir(parents=True)
    (group / "b/memory.max").write_text("max\n")
    (group / "b/memory.current").write_text("7\n")
    (group / "memory.max").write_text("1000\n")
    (group / "memory.current").write_text("700\n")
    (group / "memory.stat").write_text("anon 600\ninactive_file 50\n")
    assert memory._of_containers(tmp_path / "fs", own) == [350]
    own.write_text("5:cpu:/x\n4:memory:/c\n")
    old = tmp_path / "fs/memory/c"
    old.mkdir(parents=True)
    (old / "memory.limit_in_bytes").write_text("900\n")
    (old / "memory.usage_in_bytes").write_text("100\n")
    (tmp_path / "fs/memory/memory.limit_in_bytes").write_text(f"{1 << 63}\n")  # no limit
    (tmp_path / "fs/memory/memory.usage_in_bytes").write_text("100\n")
    assert memory._of_containers(tmp_path / "fs", own) == [800]
    assert memory._of_containers(tmp_path, tmp_path / "nothing") == []

    monkeypatch.setattr(memory, "_of_machine", lambda: 500)
    monkeypatch.setattr(memory, "_of_containers", lambda: [400, 600])
    monkeypatch.setattr(memory, "_of_process", lambda: None)
    assert free_bytes("cpu") == 400
    monkeypatch.setattr(memory, "_of_process", lambda: 300)
    assert free_bytes("cpu") == 300
    monkeypatch.setattr(memory, "_of_process", lambda: -5)
    assert free_bytes("cpu") == 0


def test_a_limit_on_the_address_space_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_table", lambda path: {"VmSize": 40})
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (100, 200))
    assert memory._of_process() == 60
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, 0))
    assert memory._of_process() is None


def test_a_gpu_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    fake = SimpleNamespace(mem_get_info=lambda device: (asked.append(device), (123, 456))[1])
    monkeypatch.setattr(torch, "cuda", fake)
    assert free_bytes("cuda:1") == 123
    assert asked == [torch.device("cuda:1")]


@pytest.mark.parametrize(
    ("fault", "is_memory"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (RuntimeError("can't start new thread"), True),
        (ImportError("No module named 'torch'"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_every_way_in_which_memory_runs_out_is_known(fault: Exception, is_memory: bool) -> None:
    assert is_allocation_failure(fault) is is_memory


def test_numbers_in_tensors() -> None:
    assert num_elements([(2, 3), (4,), ()]) == 11


def test_weights_that_do_not_fit_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_checkpoint(tmp_path / "model", preset="nano")
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    monkeypatch.setattr("vidllava.backbone.load.load_weights", lambda *a, **b: pytest.fail("opened"))
    with pytest.raises(OutOfMemory, match=r"needs .* \(weights .*\), 1e-06 GB are free on cpu"):
        load_backbone(str(folder))


def test_a_question_that_does_not_fit_is_refused_before_its_clip_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(str(tiny_checkpoint(tmp_path / "model", preset="nano")))
    clip = write_clip(tmp_path / "clip.mp4")
    question = plan_question([str(clip)], "what?", backbone.settings, backbone.codec)
    monkeypatch.setattr("vidllava.backbone.answer.see", lambda *a, **b: pytest.fail("decoded"))
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    with pytest.raises(OutOfMemory, match=r"this question: needs .*vision .*prompt .*cache"):
        answer_question(backbone, question)
