"""Small tokenizers for tests: a byte-level BPE in Qwen2's manner, one that spells letters, and a dialogue."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from vidllava.errors import ModelError
from vidllava.prompting.conversation import SLOT, Turn
from vidllava.prompting.template import After

CONTROLS = ["<|im_start|>", "<|im_end|>", "<image>", "<video>", "<s>", "</s>"]
# Qwen2's own rule: line ends that meet become one word, as in "user\\n" + "\\nWhat".
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Bpe:
    """A byte-level BPE tokenizer in Qwen2's manner, as an `Encoder`."""

    def __init__(self) -> None:
        words = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN_WORDS), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        trainer = trainers.BpeTrainer(
            vocab_size=340,
            special_tokens=CONTROLS,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        self.tokenizer = Tokenizer(models.BPE())
        self.tokenizer.pre_tokenizer = words
        self.tokenizer.decoder = decoders.ByteLevel()
        self.tokenizer.train_from_iterator(
            ["user\n\nassistant\n\n\nsystem\n What happens in the USER: ASSISTANT: You are a helpful"] * 9,
            trainer,
        )

    def encode(self, text: str, after: After = "nothing") -> list[int]:
        self.tokenizer.encode_special_tokens = True
        return self.tokenizer.encode(text).ids

    def special(self, name: str) -> int:
        id_ = self.tokenizer.token_to_id(name)
        if id_ is None:
            raise ModelError("tokenizer", f"has no token {name}")
        return id_

    def bos(self) -> tuple[int, ...]:
        return ()

    def eos(self) -> int:
        return self.special("</s>")

    def controls(self) -> frozenset[str]:
        return frozenset(CONTROLS)

    def read_spelt(self, text: str) -> list[int]:
        """The ids of a prompt written out, control tokens recognised, placeholders as slots."""
        self.tokenizer.encode_special_tokens = False
        slots = {self.special("<image>"): SLOT, self.special("<video>"): SLOT}
        return [slots.get(id_, id_) for id_ in self.tokenizer.encode(text).ids]

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode([id_ for id_ in ids if id_ != SLOT], skip_special_tokens=False)


class Letters:
    """The plainest encoder: one id per byte."""

    def encode(self, text: str, after: After = "nothing") -> list[int]:
        return list(text.encode())

    def bos(self) -> tuple[int, ...]:
        return ()

    def eos(self) -> int:
        return self.special("</s>")

    def special(self, name: str) -> int:
        return 1000 + CONTROLS.index(name)

    def controls(self) -> frozenset[str]:
        return frozenset(CONTROLS)


DIALOGUE = [
    Turn("user", "<image>\nWhat is this?"),
    Turn("assistant", "A cat."),
    Turn("user", "\nAnd in <video>?\n"),
    Turn("assistant", "Two cats."),
]
