"""Every family in every layout reads as transformers' own class does: ids, token counts, pixels, logits.

Tiny random checkpoints of the true layouts in fp32. The orders of summation differ in pooling and rotation
only, about 1e-7 relative; layers and head amplify that. Where transformers cannot read a clip as it should be
(LLaVA-NeXT has no video, LLaVA-Video's newlines are not in its class), the rows are built by the published
formula and given to transformers' language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, LlavaNextVideoForConditionalGeneration

from tests.clips import write_clip
from tests.models.checkpoints import PUBLISHED, hf_checkpoint, original_checkpoint
from vidllava.backbone.generate import generate_after, stop_ids
from vidllava.backbone.load import load_backbone
from vidllava.backbone.model import Backbone
from vidllava.backbone.prefill import PromptMemory
from vidllava.backbone.see import StageClock, see
from vidllava.backbone.splice import SampleInput, VisualInput, collate
from vidllava.media.decode import decode
from vidllava.media.pixels import normalise, picture_tiles, resize_frames
from vidllava.prompting.conversation import SLOT
from vidllava.visuals.options import AskOptions, GenerateOptions
from vidllava.visuals.question import MediaItem, Question, plan_question

LAYOUTS = ("hf", "names of transformers 4", "original")
RELATIVE = 1e-4
FRAMES = 5


@dataclass
class Pair:
    """One checkpoint opened by us in some layout, and by transformers in its own."""

    name: str
    layout: str
    ours: Backbone
    theirs: Any
    tokenizer: Any

    @property
    def family(self) -> str:
        return PUBLISHED[self.name].family


def opened_pair(name: str, layout: str, tmp_path_factory: Any) -> Pair:
    """The checkpoint called ``name`` in ``layout``, opened by both."""
    root = tmp_path_factory.mktemp("pair")
    hf = hf_checkpoint(name, root / "hf")
    theirs = PUBLISHED[name].hf_class.from_pretrained(hf, dtype=torch.float32).eval()
    opened = {
        "hf": lambda: hf,
        "names of transformers 4": lambda: hf_checkpoint(name, root / "old", legacy_keys=True),
        "original": lambda: original_checkpoint(name, root / "original"),
    }[layout]()
    if PUBLISHED[name].family == "llava-video" and layout != "original":
        # In transformers' layout nothing tells it from OneVision: `models convert` writes this file.
        (opened / "vidllava.json").write_text('{"preset": "llava-video"}', encoding="utf-8")
    return Pair(name, layout, load_backbone(str(opened)), theirs, AutoTokenizer.from_pretrained(hf))


@pytest.fixture(
    scope="module",
    params=[(name, layout) for name in sorted(PUBLISHED) for layout in LAYOUTS],
    ids=lambda both: f"{both[0]}-{both[1].replace(' ', '_')}",
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return opened_pair(*request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    # Wider than high: cut and squashed differ.
    return str(write_clip(tmp_path_factory.mktemp("media") / "clip.mp4", num_frames=24, width=160, height=96))


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("media") / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((200, 120), Image.Resampling.BICUBIC).save(path)
    return str(path)


def asked(pair: Pair, path: str, **options: Any) -> Question:
    settings = pair.ours.settings
    # What the checkpoint stores; the reserve alone is longer than a tiny context.
    given = AskOptions(rope_factor=settings.least_factor, time_instruction=False, **options)
    return plan_question(
        [path], "what happens in the clip", settings, pair.ours.codec, given, require_fit=False
    )


def shown(pair: Pair, item: MediaItem) -> torch.Tensor:
    """uint8 [N, 3, S, S]: what our tower reads."""
    settings = pair.ours.settings
    if item.picture is not None:
        return picture_tiles(item.picture, item.pinpoints, settings.image_size)
    frames = decode(item.info, item.plan).pixels
    return resize_frames(frames, settings.frame_size)


def values(pair: Pair, pixels: torch.Tensor) -> torch.Tensor:
    settings = pair.ours.settings
    return normalise(pixels, settings.image_mean, settings.image_std, torch.float32)


def expanded(pair: Pair, question: Question, token: str) -> torch.Tensor:
    """Token ids as transformers' processors write them: a placeholder for every visual row."""
    place = pair.tokenizer.convert_tokens_to_ids(token)
    count = question.items[0].layout.num_tokens
    ids = [one for id_ in question.prompt.ids for one in ([place] * count if id_ == SLOT else [id_])]
    return torch.tensor([ids])


@torch.inference_mode()
def their_inputs(pair: Pair, question: Question) -> dict[str, Any]:
    """What transformers' class is given for the same question."""
    (item,) = question.items
    pixels, theirs = values(pair, shown(pair, item)), pair.theirs
    if item.picture is not None:
        inputs = {"input_ids": expanded(pair, question, "<image>")}
        if pair.family == "interleave":
            return inputs | {"pixel_values": pixels}
        sizes = torch.tensor([[item.height, item.width]])
        return inputs | {"pixel_values": pixels[None], "image_sizes": sizes}
    if pair.family == "interleave":  # frames are pictures
        return {"input_ids": expanded(pair, question, "<image>"), "pixel_values": pixels}
    if pair.family in ("next-video", "onevision"):
        return {"input_ids": expanded(pair, question, "<video>"), "pixel_values_videos": pixels[None]}
    rows = next_rows(pair, pixels) if pair.family == "next" else grid_rows(pair, pixels)
    ids = expanded(pair, question, "<image>")
    embeds = theirs.get_input_embeddings()(ids)
    place = ids == pair.tokenizer.convert_tokens_to_ids("<image>")
    assert int(place.sum()) == len(rows)
    return {"inputs_embeds": embeds.masked_scatter(place[..., None], rows)}


def next_rows(pair: Pair, pixels: torch.Tensor) -> torch.Tensor:
    """LLaVA-NeXT's frames as LLaVA-NeXT-Video's class reads them with the same weights."""
    from transformers import LlavaNextVideoConfig

    config = pair.theirs.config
    video = LlavaNextVideoForConditionalGeneration(
        LlavaNextVideoConfig(
            vision_config=config.vision_config,
            text_config=config.text_config,
            vision_feature_layer=config.vision_feature_layer,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            image_grid_pinpoints=config.image_grid_pinpoints,
        )
    ).eval()
    video.load_state_dict(pair.theirs.state_dict())
    return torch.cat(list(video.model.get_video_features(pixels[None]).pooler_output)).flatten(0, -2)


def grid_rows(pair: Pair, pixels: torch.Tensor) -> torch.Tensor:
    """LLaVA-Video: bilinear to ceil(side / 2), newline after each row (LLaVA-NeXT `add_token_per_grid`)."""
    model = pair.theirs.model
    seen = model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
    features = model.multi_modal_projector(seen)
    side = int(features.shape[1] ** 0.5)
    maps = features.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    half = -(-side // 2)
    maps = torch.nn.functional.interpolate(maps, size=(half, half), mode="bilinear")
    rows = maps.permute(0, 2, 3, 1)
    newline = model.image_newline.expand(*rows.shape[:2], 1, -1)
    return torch.cat([rows, newline], dim=2).flatten(0, 2)


@torch.inference_mode()
def our_logits(pair: Pair, question: Question) -> torch.Tensor:
    (item,) = question.items
    sample = SampleInput(question.prompt, (VisualInput(shown(pair, item), item.layout),))
    return pair.ours.all_logits(collate([sample]), rope_factor=question.budget.rope_factor)


@torch.inference_mode()
def compare(pair: Pair, question: Question) -> None:
    expected = pair.theirs(**their_inputs(pair, question)).logits
    found = our_logits(pair, question)
    assert found.shape == expected.shape
    assert float((found - expected).norm() / expected.norm()) < RELATIVE
    assert float((found - expected).abs().max()) < RELATIVE * float(expected.abs().max())


def test_prompt_ids_are_those_of_its_own_chat_template(pair: Pair, clip: str):
    if pair.layout == "original":
        pytest.skip("the original folder holds no chat template")
    question = asked(pair, clip, num_frames=FRAMES)
    kind = "video" if "<video>" in pair.tokenizer.get_vocab() and pair.family != "interleave" else "image"
    message = {"role": "user", "content": [{"type": kind}, {"type": "text", "text": question.text}]}
    text = pair.tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    place = pair.tokenizer.convert_tokens_to_ids(f"<{kind}>")
    expected = [SLOT if id_ == place else id_ for id_ in pair.tokenizer(text).input_ids]
    assert list(question.prompt.ids) == expected
    assert expected.count(SLOT) == 1


def test_clip_logits_are_transformers(pair: Pair, clip: str):
    compare(pair, asked(pair, clip, num_frames=FRAMES))


def test_picture_logits_are_transformers(pair: Pair, picture: str):
    compare(pair, asked(pair, picture))


def test_two_pictures_are_tiled_as_transformers_tiles_them(pair: Pair, tmp_path: Path):
    """LLaVA-NeXT's classes tile every picture; its processor pads the views of all to the most."""
    if pair.family not in ("next", "next-video"):
        pytest.skip("its pictures are squares beside others")
    paths = []
    for number, size in enumerate([(200, 120), (90, 210)]):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path := tmp_path / f"{number}.png")
        paths.append(str(path))
    settings, given = pair.ours.settings, AskOptions(rope_factor=8)
    question = plan_question(paths, "same?", settings, pair.ours.codec, given, require_fit=False)
    views = [shown(pair, item) for item in question.items]
    most = max(len(one) for one in views)
    padded = [values(pair, one) for one in views]
    padded = [torch.cat([one, one.new_zeros(most - len(one), *one.shape[1:])]) for one in padded]
    counts = iter([item.layout.num_tokens for item in question.items])
    place = pair.tokenizer.convert_tokens_to_ids("<image>")
    ids = [one for id_ in question.prompt.ids for one in ([place] * next(counts) if id_ == SLOT else [id_])]
    factor = pair.ours.settings.least_factor
    with torch.inference_mode():
        expected = pair.theirs(
            input_ids=torch.tensor([ids]),
            pixel_values=torch.stack(padded),
            image_sizes=torch.tensor([[item.height, item.width] for item in question.items]),
        ).logits
        visuals = tuple(
            VisualInput(one, item.layout) for one, item in zip(views, question.items, strict=True)
        )
        found = pair.ours.all_logits(collate([SampleInput(question.prompt, visuals)]), rope_factor=factor)
    assert float((found - expected).norm() / expected.norm()) < RELATIVE


def test_an_answer_ends_with_the_tokens_of_the_checkpoint(pair: Pair):
    assert pair.tokenizer.eos_token_id in stop_ids(pair.ours)
    assert pair.ours.codec.eos() == pair.tokenizer.eos_token_id


def greedy_ids(pair: Pair, question: Question) -> tuple[list[int], list[int]]:
    """(our ids, theirs) of 20 greedy steps; what ends an answer is left out."""
    ours, factor = pair.ours, question.budget.rope_factor
    seen = see(ours, question.items, StageClock(ours.device))
    memory = PromptMemory(ours)
    logits = memory.read(
        question.prompt, [item.layout for item in question.items], seen.features, rope_factor=factor
    )
    options = GenerateOptions(max_new_tokens=20)
    ids = list(
        generate_after(ours, logits, memory.cache, memory.num_rows, rope_factor=factor, options=options)
    )
    inputs = their_inputs(pair, question)
    inputs["attention_mask"] = torch.ones(next(iter(inputs.values())).shape[:2], dtype=torch.long)
    their_ids = pair.theirs.generate(**inputs, max_new_tokens=20, do_sample=False)[0]
    their_ids = their_ids[inputs["input_ids"].shape[1] :] if "input_ids" in inputs else their_ids
    expected = their_ids.tolist()
    if expected[-1] in stop_ids(ours):
        expected.pop()
    return ids, expected


def test_twenty_greedy_ids_are_transformers(pair: Pair, clip: str):
    ids, expected = greedy_ids(pair, asked(pair, clip, num_frames=FRAMES))
    assert expected, "too short to say anything"
    assert ids == expected


def test_frames_are_the_pixels_of_its_own_processor(pair: Pair, clip: str):
    from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil

    (item,) = asked(pair, clip, num_frames=FRAMES).items
    frames = [Image.fromarray(frame) for frame in decode(item.info, item.plan).pixels]
    content = dict(PUBLISHED[pair.name].processor)
    kind = CLIPImageProcessorPil if "crop_size" in content else SiglipImageProcessorPil
    known = ("size", "crop_size", "image_mean", "image_std", "do_center_crop", "resample")
    processor = kind(**{key: value for key, value in content.items() if key in known})
    expected = torch.as_tensor(np.stack(processor(frames, return_tensors="np")["pixel_values"]))
    found = values(pair, shown(pair, item))
    level = 1 / 255 / min(pair.ours.settings.image_std)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= 2.01 * level  # torch's uint8 bicubic beside Pillow's
    assert float((found - expected).abs().mean()) < 0.3 * level
