"""Write a tokenizer into a GGUF file: byte-level BPE, and the BPE of SentencePiece, from tokenizer.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import ModelError
from tunesmith.files.untrusted import leads_out, read_json
from tunesmith_export.folders import read_tokenizer
from tunesmith_export.pretokenizers import name_of

if TYPE_CHECKING:
    from gguf import GGUFWriter

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Types of tokens in GGUF."""
SPACE = "\u2581"
"""The character that SentencePiece writes for a space."""
ADVICE = "a wrong name splits some texts differently without an error"


@dataclass
class Vocabulary:
    """The tokenizer section of a GGUF file."""

    model: str
    tokens: list[str]
    types: list[int]
    special: dict[str, int]
    bos: bool
    eos: bool
    template: str | None
    pre: str | None = None
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    prefix: bool = False
    notes: list[str] = field(default_factory=list)

    def write(self, writer: GGUFWriter) -> None:
        """Add the tokenizer to a file."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre or "default")
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.model == "gpt2":
            writer.add_token_merges(self.merges)
        else:
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(self.prefix)
        add = {"bos": writer.add_bos_token_id, "eos": writer.add_eos_token_id, "unk": writer.add_unk_token_id,
               "pad": writer.add_pad_token_id, "eot": writer.add_eot_token_id}  # fmt: skip
        for role, number in self.special.items():
            add[role](number)
        writer.add_add_bos_token(self.bos)
        writer.add_add_eos_token(self.eos)
        if self.template:
            writer.add_chat_template(self.template)


def read_vocabulary(folder: Path, rows: int, pre: str | None = None) -> Vocabulary:
    """Return the tokenizer of a model.

    Args:
        folder: the folder of the model.
        rows: the number of rows of its embeddings. Rows without a token get a name that no text contains.
        pre: llama.cpp's name of the pre-tokenizer, if it is not recognized.

    Raises ModelError for a tokenizer that llama.cpp would apply differently.
    """
    path = folder / "tokenizer.json"
    if not path.is_file() or leads_out(folder, path):
        help = "save the tokenizer with a current transformers, which writes tokenizer.json"
        raise ModelError(f"{folder} has no tokenizer.json", code="export", help=help)
    content = read_json(path)
    model = content.get("model") or {}
    if model.get("type") != "BPE":
        help = "models of the supported families have BPE tokenizers"
        raise ModelError(
            f"{path}: tokenizers of the type {model.get('type')} are not written", code="export", help=help
        )
    tokenizer = read_tokenizer(folder)
    if len(tokenizer) > rows:
        message = f"the tokenizer has {len(tokenizer):,} tokens, and the embeddings have {rows:,} rows"
        raise ModelError(message, code="export", help="the tokenizer belongs to another model")
    tokens, types = _tokens(content, rows)
    special, bos, eos = _special(tokenizer)
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None
    if model.get("byte_fallback"):
        prefix = _prefix(content, path)
        result = Vocabulary("llama", tokens, types, special, bos, eos, template, prefix=prefix)
        result.scores = _scores(model, tokens, path)
        _mark_bytes(result, tokenizer)
        return result
    result = Vocabulary("gpt2", tokens, types, special, bos, eos, template)
    result.pre = pre or name_of(content)
    if result.pre is None:
        message = (
            f"{path}: the pre-tokenizer is not one that llama.cpp is known to have, so it would split texts differently"
        )
        help = f"name it, if you know that llama.cpp has it: --pre NAME; {ADVICE}"
        raise ModelError(message, code="export", help=help)
    result.merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges", ())]
    if (content.get("normalizer") or {}).get("type") == "NFC":
        result.notes.append("tokenizer: llama.cpp does not normalize texts to NFC; texts in that form are not affected")
    return result


def _tokens(content: dict[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Return the text and the type of each token."""
    tokens, types = [f"[PAD{number}]" for number in range(rows)], [UNUSED] * rows
    for text, number in content["model"]["vocab"].items():
        tokens[number], types[number] = text, NORMAL
    for added in content.get("added_tokens", ()):
        number = added["id"]
        tokens[number], types[number] = added["content"], CONTROL if added.get("special") else USER_DEFINED
    return tokens, types


def _special(tokenizer: Any) -> tuple[dict[str, int], bool, bool]:
    """Return the ids of special tokens by role, and whether a text gets the first and the last of them."""
    from tunesmith import turn_ends

    special = {role: getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "unk", "pad")}
    special = {role: number for role, number in special.items() if number is not None}
    ends = turn_ends(tokenizer, {}) if tokenizer.chat_template else ()
    for end in ends:
        number = tokenizer.convert_tokens_to_ids(end)
        if number is not None and number != tokenizer.unk_token_id and number != special.get("eos"):
            special["eot"] = number
    ids = tokenizer("a")["input_ids"]
    return special, ids[:1] == [special.get("bos")], len(ids) > 1 and ids[-1] == special.get("eos")


def _prefix(content: dict[str, Any], path: Path) -> bool:
    """Return True if a tokenizer of SentencePiece puts a space before a text. Raises ModelError for unknown steps."""
    before, space = False, False
    for step in [
        *_flat(content.get("normalizer"), "normalizers"),
        *_flat(content.get("pre_tokenizer"), "pretokenizers"),
    ]:
        kind = step.get("type")
        if kind == "Prepend" and step.get("prepend") == SPACE:
            before = True
        elif kind == "Replace" and step.get("content") == SPACE and step.get("pattern") == {"String": " "}:
            space = True
        elif kind == "Metaspace" and step.get("replacement") == SPACE:
            before, space = before or step.get("prepend_scheme", "always") != "never", True
        elif not (kind == "Split" and step.get("pattern") == {"String": " "}):
            message = f"{path}: the step {kind} before the merges has no counterpart in llama.cpp"
            raise ModelError(message, code="export")
    if not space:
        raise ModelError(f"{path}: spaces are not written as {SPACE}, which llama.cpp does", code="export")
    return before


def _flat(step: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    if step is None:
        return []
    return [one for inner in step[key] for one in _flat(inner, key)] if step.get("type") == "Sequence" else [step]


def _scores(model: dict[str, Any], tokens: list[str], path: Path) -> list[float]:
    """Return a score for each token, from the order of the merges.

    SentencePiece and llama.cpp merge the neighbors whose union has the highest score. tokenizer.json lists merges: all
    pairs with one union, then those of the next one. So the score of a token is minus its rank. Raises ModelError if
    the merges are not in such an order or leave out a pair: then llama.cpp would merge differently.
    """
    vocab, ranks, seen, last = model["vocab"], dict[str, int](), set[tuple[str, str]](), ""
    for merge in model.get("merges", ()):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        union = left + right
        if union != last and union in ranks:
            message = f"{path}: the merges that give {union!r} are not together, so it has no score of SentencePiece"
            raise ModelError(message, code="export")
        ranks.setdefault(union, len(ranks))
        seen.add((left, right))
        last = union
    for token in vocab:
        for cut in range(1, len(token)):
            pair = token[:cut], token[cut:]
            if pair[0] in vocab and pair[1] in vocab and pair not in seen:
                message = f"{path}: the merge of {pair[0]!r} and {pair[1]!r} is missing, which llama.cpp would do"
                raise ModelError(message, code="export")
    lowest = float(len(ranks))
    return [-float(ranks[token]) if token in ranks else -lowest for token in tokens]


def _mark_bytes(vocabulary: Vocabulary, tokenizer: Any) -> None:
    """Set the types of the unknown token and of tokens that stand for a byte."""
    for number, token in enumerate(vocabulary.tokens):
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            vocabulary.types[number] = BYTE
    if tokenizer.unk_token_id is not None:
        vocabulary.types[tokenizer.unk_token_id] = UNKNOWN
