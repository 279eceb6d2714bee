"""Published figures that need no weights: prompt ids, token counts, frames that fit at each RoPE factor.

Sources: transformers' tests/models/llava_next_video and llava_onevision; the LLaVA-NeXT-Video blog's pooling
and 4096 positions.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlavaNextProcessor

from vidllava.backbone.settings import named_settings
from vidllava.backbone.tokens import TextCodec
from vidllava.media.frames import CentreCrop
from vidllava.prompting.budget import budget
from vidllava.prompting.conversation import SLOT, VICUNA, build_prompt, tokenize
from vidllava.prompting.layout import picture_layout
from vidllava.visuals.planner import VisualPlanner

# The pieces of Llama's vocabulary that the prompt is made of, with their ids in it.
PIECES = {
    **{"▁US": 3148, "ER": 1001, ":": 29901, "▁": 29871, "<0x0A>": 13, "Why": 11008, "▁is": 338, "▁this": 445},
    **{
        "▁video": 4863,
        "▁fun": 2090,
        "ny": 1460,
        "?": 29973,
        "▁A": 319,
        "SS": 1799,
        "IST": 9047,
        "ANT": 13566,
    },
}
NINETEEN = [1, 3148, 1001, 29901, 29871, 32000, 13, 11008, 338, 445, 4863, 2090, 1460, 29973, 319, 1799, 9047]
NINETEEN += [13566, 29901]


def llama_of_these_words() -> Tokenizer:
    """A tokenizer that merges letters into ``PIECES``, each with its id in Llama's vocabulary."""
    vocabulary, merges = dict(PIECES), []
    vocabulary |= {"<unk>": 0, "<s>": 1, "</s>": 2}
    free = iter(range(3, 13))
    spare = iter(range(20_000, 29_000))
    for byte in range(256):
        vocabulary.setdefault(f"<0x{byte:02X}>", next(free, None) or next(spare))
    for piece in PIECES:
        if piece.startswith("<0x"):
            continue
        for end in range(1, len(piece) + 1):
            for part in (piece[:end], piece[end - 1]):
                vocabulary.setdefault(part, next(spare))
            if end > 1 and (piece[: end - 1], piece[end - 1]) not in merges:
                merges.append((piece[: end - 1], piece[end - 1]))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    while tokenizer.get_vocab_size() < 32_000:
        start = tokenizer.get_vocab_size()
        tokenizer.add_tokens([f"<unused {number}>" for number in range(start, 32_000)])
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<s>", "</s>")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def test_the_nineteen_ids_of_next_videos_prompt():
    """test_modeling_llava_next_video.py: "USER: <video>\\nWhy is this video funny? ASSISTANT:"."""
    codec = TextCodec(llama_of_these_words(), "llama", eos="</s>")
    turns = build_prompt("Why is this video funny?", ["video"], system="")
    ids = tokenize(turns, VICUNA, codec, add_generation_prompt=True).ids
    assert [32_000 if id_ == SLOT else id_ for id_ in ids] == NINETEEN


def test_a_picture_of_next_video_has_1525_tokens_and_one():
    """test_processing_llava_next_video.py: 503 high, 316 wide, one grid of 672 x 336.

    1525 is what the processor's class counts with no extra token per view, which it takes the class token off
    all the same; the published processor_config.json has one, and 1526 rows come out of the model.
    """
    layout = picture_layout(503, 316, side=24, tile_size=336, pinpoints=[(672, 336)], max_tiles=None)
    for extra, expected in ((0, 1525), (1, 1526)):
        processor = object.__new__(LlavaNextProcessor)
        processor.image_processor = SimpleNamespace(image_grid_pinpoints=[[672, 336]])
        processor.patch_size, processor.num_additional_image_tokens = 14, extra
        counted = processor._get_number_of_features(503, 316, 336, 336)
        assert counted - 1 == expected, "the strategy is default: the class token is dropped"
    assert layout.num_tokens == 1526


def test_a_picture_of_onevision_makes_6567_ids_with_16_of_text():
    """test_modeling_llava_onevision.py: 899 high, 1024 wide, ten views, 6567 ids of which 16 are words."""
    layout = VisualPlanner.of(named_settings("onevision-0.5b")).picture(899, 1024)
    assert (layout.num_tokens + 16, layout.num_grids) == (6567, 10)


@pytest.mark.parametrize(
    ("name", "frames", "tokens"),
    [
        ("next-video-7b", 32, 4608),
        ("next-video-34b", 128, 18_432),
        ("interleave-7b", 16, 11_664),
        ("onevision-7b", 32, 6273),
        ("llava-video-7b", 64, 13_440),
        ("next-vicuna-7b", 16, 2304),
    ],
)
def test_clips_have_the_published_numbers_of_tokens(name: str, frames: int, tokens: int):
    assert VisualPlanner.of(named_settings(name)).video(frames).num_tokens == tokens


def test_frames_that_fit_4096_positions_at_each_factor():
    planner = VisualPlanner.of(named_settings("next-video-7b"))
    counted = budget(
        [planner.video(8)], 0, reserve_tokens=1000, context_limit=4096, least_factor=2.5, rope_factor="auto"
    )
    assert counted.frames_at_factor == {1: 21, 2: 49, 2.5: 64, 3: 78, 4: 106}
    assert counted.rope_factor == 2.5, "published with it, whatever the number of frames"
    assert counted.notice is None


@pytest.mark.parametrize(
    ("asked", "frames", "factor", "limit"),
    [
        ("auto", 64, 2.5, 10_240),
        ("auto", 65, 3, 12_288),
        ("auto", 106, 4, 16_384),
        ("off", 8, 1, 4096),
        (2, 8, 2, 8192),
        (1.5, 8, 1.5, 6144),
    ],
)
def test_the_factor_is_absolute_and_what_is_stored_is_the_least(
    asked: str | float, frames: int, factor: float, limit: int
):
    planner = VisualPlanner.of(named_settings("next-video-7b"))
    counted = budget(
        [planner.video(frames)],
        0,
        reserve_tokens=1000,
        context_limit=4096,
        least_factor=2.5,
        rope_factor=asked,  # type: ignore[arg-type]
    )
    assert (counted.rope_factor, counted.limit, counted.fits) == (factor, limit, True)
    raised = asked == "auto" and factor > 2.5
    assert (counted.notice is not None) == raised
    if raised:
        assert "exceed the trained context 4096 at the model's own factor 2.5" in str(counted.notice)


def test_onevision_stores_no_factor():
    settings = named_settings("onevision-0.5b")
    assert (settings.trained_context, settings.least_factor, settings.frame_size) == (32_768, 1.0, 384)


def test_next_videos_frames_are_cut_from_the_middle():
    assert named_settings("next-video-7b").frame_size == CentreCrop(edge=336, side=336)
