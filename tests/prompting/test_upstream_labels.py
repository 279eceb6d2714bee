"""`--upstream-labels`: the labels that LLaVA-NeXT's own trainer sets, token by token."""

from __future__ import annotations

import pytest

from tests.prompting.encoders import DIALOGUE, Bpe, Letters
from vidllava.errors import ModelError
from vidllava.prompting.conversation import CHATML, IGNORE, SLOT, VICUNA, Turn, tokenize


@pytest.fixture(scope="module")
def bpe():
    return Bpe()


def test_upstream_labels_are_the_original_trainers(bpe):
    ours = tokenize(DIALOGUE, CHATML, bpe, add_generation_prompt=False)
    prompt = tokenize(DIALOGUE, CHATML, bpe, add_generation_prompt=False, labels="upstream")
    assert prompt.ids == ours.ids
    unmasked = {bpe.encode("\n")[0], bpe.special("<|im_start|>"), bpe.special("<|im_end|>")}
    # The rule as the original states it: assistant blocks whole, three ids anywhere.
    expected, in_assistant = [], False
    headers = {tuple(bpe.encode("assistant\n")): True, tuple(bpe.encode("user\n")): False}
    for position, id_ in enumerate(prompt.ids):
        if id_ == bpe.special("<|im_start|>"):
            in_assistant = headers.get(prompt.ids[position + 1 : position + 3], False)
        expected.append(id_ if in_assistant or id_ in unmasked else IGNORE)
    assert list(prompt.labels) == expected
    assert prompt.num_labels > ours.num_labels


def test_upstream_labels_of_vicuna_are_the_answers(bpe):
    ours = tokenize(DIALOGUE, VICUNA, bpe, add_generation_prompt=False)
    assert tokenize(DIALOGUE, VICUNA, bpe, add_generation_prompt=False, labels="upstream") == ours


def test_upstream_labels_need_a_line_end_of_one_token():
    class TwoByteLineEnd(Letters):
        def encode(self, text: str, after: str = "nothing") -> list[int]:
            return list(text.replace("\n", "\r\n").encode())

    with pytest.raises(ModelError, match="is 2 tokens"):
        tokenize(DIALOGUE, CHATML, TwoByteLineEnd(), add_generation_prompt=False, labels="upstream")


def as_upstream_does(turns, encoder) -> tuple[list[int], list[int]]:
    """LLaVA-NeXT's `preprocess_qwen` in its own steps: each block through the chat template by itself, an
    answer's block learnt whole, and then every line end and block mark anywhere."""
    start, end = (encoder.special(name) for name in ("<|im_start|>", "<|im_end|>"))
    (line_end,) = encoder.encode("\n")
    ids: list[int] = []
    labels: list[int] = []
    for role, text in [("system", "You are a helpful assistant."), *((t.role, t.text) for t in turns)]:
        words: list[int] = []
        for number, piece in enumerate(f"{role}\n{text}".split("<image>")):
            words += [SLOT] * (number > 0) + (encoder.encode(piece) if piece else [])
        block = [start, *words, end, line_end]
        ids += block
        labels += block if role == "assistant" else [IGNORE] * len(block)
    everywhere = {start, end, line_end}
    return ids, [
        id_ if id_ in everywhere else IGNORE if id_ == SLOT else label
        for id_, label in zip(ids, labels, strict=True)
    ]


def test_upstream_labels_token_by_token(bpe):
    turns = [
        Turn("user", "What happens\nin the <image> assistant?"),
        Turn("assistant", "You are\nhelpful"),
        Turn("user", "<image>\nuser"),
        Turn("assistant", "system"),
    ]
    ids, labels = as_upstream_does(turns, bpe)
    prompt = tokenize(turns, CHATML, bpe, add_generation_prompt=False, labels="upstream")
    assert list(prompt.ids) == ids
    assert list(prompt.labels) == labels
    ours = tokenize(turns, CHATML, bpe, add_generation_prompt=False)
    assert ours.num_labels < prompt.num_labels
    # Within a question, too: the line end after "happens" is learnt, the words are not.
    at = prompt.ids.index(bpe.encode("\n")[0], prompt.ids.index(SLOT) - 20)
    assert prompt.labels[at] == prompt.ids[at]
