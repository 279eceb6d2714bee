"""nano's tokenizer: byte-level BPE learnt from the world's own words, so that each of them is one token.

Any other UTF-8 text is spelt in bytes: it costs more tokens but is never lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from vidllava.nano.questions import BARE_VERBS, LOCATORS, MEDIA_WORDS, ORDINALS, WORDINGS
from vidllava.nano.scene import COLOURS, DIGITS, DIRECTIONS, GLYPHS, SHAPES, VERBS

END_OF_TEXT, IM_START, IM_END, IMAGE, VIDEO = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<image>",
    "<video>",
)
SPECIAL = (END_OF_TEXT, IM_START, IM_END, IMAGE, VIDEO)
_TEMPLATE_WORDS = "system user assistant You are a helpful ."
_ANSWER_WORDS = "A a an and the something still yes no left right top bottom changes letter number"
# Words that nano is asked with but never trained on, and the names of visuals in `prompting` placement.
_OTHER_WORDS = (
    "Image Video Picture first second third last before after then nothing not it all both two three"
)

# ChatML as `vidllava.prompting` spells it, for users of transformers' `apply_chat_template`.
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def words() -> tuple[str, ...]:
    """Every word of the world's questions and answers, sorted."""
    texts = [template for templates in WORDINGS.values() for template in templates]
    texts += [*LOCATORS, *ORDINALS, _TEMPLATE_WORDS, _ANSWER_WORDS, _OTHER_WORDS]
    texts += [word for pair in MEDIA_WORDS.values() for word in pair]
    texts += [
        *COLOURS,
        *SHAPES,
        *(f"{shape}s" for shape in SHAPES),
        "crosses",
        *VERBS,
        *BARE_VERBS,
        *DIRECTIONS,
    ]
    texts += [*GLYPHS, *DIGITS, "0", "5", "6", "8", "9"]
    found = {word for text in texts for word in re.findall(r"[A-Za-z]+|\d", re.sub(r"\{\w+\}", " ", text))}
    return tuple(sorted(found))


def _corpus() -> Iterator[str]:
    """Each word alone, after a space and with a capital letter, often enough for every merge to be worth
    it."""
    for word in words():
        for form in dict.fromkeys((word, word[0].upper() + word[1:])):
            yield from (form, f" {form}") * 4
    yield from ("?", ".", ",", ":", "\n") * 4


def build_tokenizer() -> Tokenizer:
    """Train the tokenizer; the same text gives the same one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        min_frequency=2,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


def save_tokenizer(folder: Path, *, context: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and the chat template for transformers."""
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(),
        eos_token=IM_END,
        pad_token=END_OF_TEXT,
        extra_special_tokens=[IM_START, IMAGE, VIDEO],
        chat_template=CHAT_TEMPLATE,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)
