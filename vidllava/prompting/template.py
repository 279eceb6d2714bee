"""Chat templates: the token ids that the language model reads, and those that it is trained on.

Control tokens come from the template alone. Whatever a user, a data set or a model wrote is encoded as plain
text, so a question that spells "<|im_end|>" or "<image>" cannot end its own turn or ask for a picture.

    tokenize(turns, CHATML, encoder, add_generation_prompt=True).ids      # SLOT marks each visual
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, Protocol

from vidllava.errors import ModelError
from vidllava.prompting.turns import Placeholder, Role, Turn

SLOT = -200  # stands for one visual in token ids, in order
IGNORE = -100  # a label that is not trained on

LabelRule = Literal["answers", "upstream"]
After = Literal["nothing", "control", "text"]
"""What stands before a text that is encoded: it decides whether Llama's tokenizer begins it with "▁"."""
_Part = Literal["question", "header", "answer", "tail", "silent"]
_ANSWERS = ("answer", "silent")


@dataclass(frozen=True)
class Control:
    """A control token, by its spelling in the tokenizer."""

    name: str


EOS = Control("eos")
"""The token with which the checkpoint's own language model ends an answer, whatever it is called."""

_Piece = Control | Placeholder | str


class Encoder(Protocol):
    """What a template needs of a tokenizer. Over a Hugging Face fast tokenizer:

    encode:  `tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids`
    special: `tokenizer.convert_tokens_to_ids(name)`, refused where it gives None or the unknown token's id
    """

    def encode(self, text: str, after: After = "nothing") -> list[int]:
        """The ids of plain text: no control token is added, and none is recognised in the text.

        Pieces that are encoded one by one, each with what it stands `after`, give the ids of the whole.
        """
        ...

    def bos(self) -> tuple[int, ...]:
        """The ids that the tokenizer puts before every text: its own rule; empty for Qwen's."""
        ...

    def eos(self) -> int:
        """The id that ends an answer. Raises ModelError where the checkpoint names none."""
        ...

    def special(self, name: str) -> int:
        """The id of the control token spelt `name`. Raises ModelError if the tokenizer has none."""
        ...

    def controls(self) -> frozenset[str]:
        """How every control token of the tokenizer is spelt."""
        ...


@dataclass(frozen=True)
class Template:
    """How a conversation is spelt: what stands before and after the text of each role.

    The first piece after an answer is the control token that ends it. What the tokenizer itself puts before a
    text (`Encoder.bos`) is no part of it. `around_media` is the text before and after each visual that stands
    before a question; None puts a space between them and a line end after the last. `words_lead` stands
    between these and the question's words. A template without `takes_system` has a system line in front of
    the first question.
    `answer_lead` is text that opens an answer but that the model itself writes, such as the space after
    "ASSISTANT:". `upstream_trained` lists the tokens that the original trainer un-masks wherever they stand;
    None means that its labels are the answers only, like ours.
    """

    name: str
    system: str | None
    begin: tuple[Control | str, ...]
    before: Mapping[Role, tuple[Control | str, ...]]
    after: Mapping[Role, tuple[Control | str, ...]]
    answer_lead: str = ""
    words_lead: str = ""
    around_media: tuple[str, str] | None = None
    takes_system: bool = True
    upstream_trained: tuple[Control | str, ...] | None = None

    @property
    def control_names(self) -> frozenset[str]:
        """The control tokens that a tokenizer must have to write it; `EOS` each has."""
        pieces = (self.begin, *self.before.values(), *self.after.values())
        controls = {piece for part in pieces for piece in part if isinstance(piece, Control)}
        return frozenset(control.name for control in controls - {EOS})


_IM_START, _IM_END = Control("<|im_start|>"), Control("<|im_end|>")

# LLaVA-NeXT `llava/conversation.py` qwen_1_5; the original trains with this system line.
CHATML = Template(
    name="chatml",
    system="You are a helpful assistant.",
    begin=(),
    before={
        "system": (_IM_START, "system\n"),
        "user": (_IM_START, "user\n"),
        "assistant": (_IM_START, "assistant\n"),
    },
    after={"system": (_IM_END, "\n"), "user": (_IM_END, "\n"), "assistant": (_IM_END, "\n")},
    upstream_trained=("\n", _IM_START, _IM_END),
)

# LLaVA-NeXT `llava/conversation.py` vicuna_v1. Its role names are plain words, so a text can imitate them;
# only the control tokens around the conversation and its answers are closed to a text.
VICUNA = Template(
    name="vicuna",
    system=(
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    ),
    begin=(),
    before={"system": (), "user": ("USER: ",), "assistant": ("ASSISTANT:",)},
    after={"system": (" ",), "user": (" ",), "assistant": (EOS,)},
    answer_lead=" ",
)

# LLaVA-NeXT `llava/conversation.py` mistral_instruct, which speaks no system line.
MISTRAL = Template(
    name="mistral",
    system=None,
    begin=(),
    before={"system": (), "user": ("[INST] ",), "assistant": ()},
    after={"system": (), "user": (" [/INST]",), "assistant": (EOS,)},
    answer_lead=" ",
    takes_system=False,
)

TEMPLATES = {template.name: template for template in (CHATML, VICUNA, MISTRAL)}


@dataclass(frozen=True)
class TokenizedPrompt:
    """Token ids with `SLOT` for each visual, and for each id the label to train on or `IGNORE`."""

    ids: tuple[int, ...]
    labels: tuple[int, ...] = field(repr=False)

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.labels)

    @property
    def num_slots(self) -> int:
        """How many visuals the prompt waits for."""
        return self.ids.count(SLOT)

    @property
    def num_text_tokens(self) -> int:
        """Rows of text: all but the slots."""
        return len(self.ids) - self.num_slots

    @property
    def num_labels(self) -> int:
        """How many tokens are trained on."""
        return len(self.labels) - self.labels.count(IGNORE)


def tokenize(
    turns: Sequence[Turn],
    template: Template,
    encoder: Encoder,
    *,
    add_generation_prompt: bool,
    labels: LabelRule = "answers",
) -> TokenizedPrompt:
    """Spell the conversation in `template` and encode it; `add_generation_prompt` opens an answer at the end.

    Without a system turn the template's own system line is spoken; a system turn with no text leaves it out.
    Labels are the answers only: each answer's text and the control token that ends it, not the header before
    and not the line end after; an answer that is not to be learned has none. `labels="upstream"` gives those
    of LLaVA-NeXT's trainer instead; the ids are the same. Raises ModelError for a control token that
    the tokenizer lacks.

    The ids of a conversation that waits for an answer are a prefix of the ids of the same conversation
    continued, so the KV cache of the first serves the second.
    """
    everywhere: frozenset[int] = frozenset()
    trained: tuple[_Part, ...] = ("answer",)
    if labels == "upstream" and template.upstream_trained is not None:
        everywhere = frozenset(_single_id(piece, encoder) for piece in template.upstream_trained)
        trained = ("header", "answer", "tail")
    spelt = list(_spell(turns, template, add_generation_prompt=add_generation_prompt))
    ids = _opening(spelt[0][0] if spelt else "", encoder)
    targets = [IGNORE] * len(ids)
    after: After = "nothing"
    # An answer is encoded alone: when it is generated, its header is already there.
    for (_, is_trained), run in groupby(spelt, key=lambda item: (item[1] in _ANSWERS, item[1] in trained)):
        encoded, after = _encode([piece for piece, _ in run], encoder, after)
        ids += encoded
        targets += [id_ if id_ != SLOT and (is_trained or id_ in everywhere) else IGNORE for id_ in encoded]
    return TokenizedPrompt(tuple(ids), tuple(targets))


def _opening(first: _Piece, encoder: Encoder) -> list[int]:
    """What the tokenizer puts before every text, unless the template spells it out itself."""
    bos = list(encoder.bos())
    return [] if isinstance(first, Control) and bos == _encode([first], encoder, "nothing")[0] else bos


def _spell(
    turns: Sequence[Turn], template: Template, *, add_generation_prompt: bool
) -> Iterator[tuple[_Piece, _Part]]:
    """Every piece of the conversation in order, with the part it plays for the labels."""
    if template.system is not None and (not turns or turns[0].role != "system"):
        turns = (Turn("system", template.system), *turns)
    if not template.takes_system and turns and turns[0].role == "system":
        turns = _folded(turns)
    header: list[tuple[_Piece, _Part]] = [(piece, "header") for piece in template.before["assistant"]]
    yield from ((piece, "question") for piece in template.begin)
    for turn in turns:
        if turn.role == "assistant":
            end, *tail = template.after["assistant"]
            spoken: _Part = "answer" if turn.learned else "silent"
            yield from header if turn.learned else ((piece, "question") for piece, _ in header)
            yield from ((piece, spoken) for piece in (template.answer_lead, *turn.parts, end))
            yield from ((piece, "tail" if turn.learned else "question") for piece in tail)
        elif turn.role == "user" or turn.text:
            parts = _with_lead(turn.parts, template.words_lead) if turn.role == "user" else turn.parts
            pieces = (*template.before[turn.role], *parts, *template.after[turn.role])
            yield from ((piece, "question") for piece in pieces)
    if add_generation_prompt:
        yield from header


def _folded(turns: Sequence[Turn]) -> Sequence[Turn]:
    """The conversation with its system line in front of the first question, an empty line between: as the
    later templates of models without a place for it do."""
    line, *rest = turns
    if not line.text or not rest:
        return rest
    return [Turn.from_parts(rest[0].role, [f"{line.text}\n\n", *rest[0].parts]), *rest[1:]]


def _with_lead(parts: Sequence[str | Placeholder], lead: str) -> Sequence[str | Placeholder]:
    """A question's parts with `lead` after the visuals that stand before its words."""
    if not lead:
        return parts
    front = 0
    for number, part in enumerate(parts):
        if isinstance(part, str) and part.strip():
            break
        front = number + 1 if isinstance(part, Placeholder) else front
    return (*parts[:front], lead, *parts[front:])


def _encode(pieces: Sequence[_Piece], encoder: Encoder, after: After) -> tuple[list[int], After]:
    """Ids of the pieces, and what stands at their end. Neighbouring texts are joined first: "user\n" and "\n"
    may share a token."""
    ids: list[int] = []
    for is_text, run in groupby(pieces, key=lambda piece: isinstance(piece, str)):
        if is_text:
            text = "".join(str(piece) for piece in run)
            ids += encoder.encode(text, after) if text else []
            after = "text" if text else after
            continue
        for piece in run:
            if isinstance(piece, Control):
                ids.append(encoder.eos() if piece == EOS else encoder.special(piece.name))
            else:
                ids.append(SLOT)
        after = "control"
    return ids, after


def _single_id(piece: _Piece, encoder: Encoder) -> int:
    ids, _ = _encode((piece,), encoder, "control")
    if len(ids) != 1:
        raise ModelError(
            "tokenizer",
            f"{piece!r} is {len(ids)} tokens, upstream labels need it to be one",
            "leave out --upstream-labels",
        )
    return ids[0]
