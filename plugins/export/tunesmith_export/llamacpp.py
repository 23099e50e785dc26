"""Compare a GGUF file with the trained model in llama.cpp itself, if the package xllamacpp is installed.

It computes the file as it will be computed when it is used: tokens, metadata and weights. transformers reads only a
part of the metadata, and not the tokenizer as llama.cpp applies it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import ModelError
from tunesmith_export.folders import ParityError

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith_export.parity import Parity

PACKAGE = "xllamacpp"
CANDIDATES = 1000
"""Most likely tokens whose log-probabilities are compared at a place."""
FLOAT, QUANTIZED = 2e-2, 0.1
"""Largest relative difference: llama.cpp rounds activations to the type of F16 and BF16 weights, and to 8 bits for
quantized ones."""
SECONDS = 120


def installed() -> bool:
    """Return True if the package is installed."""
    return find_spec(PACKAGE) is not None


class LlamaCpp:
    """A model in llama.cpp, in this process. Use `loaded`."""

    def __init__(self, server: Any):
        self.server = server
        self.forced = self.tokens("a")[-1]

    def tokens(self, text: str) -> list[int]:
        """Return the token ids of a text, with the tokens that the file says are added."""
        body = json.dumps({"content": text, "add_special": True, "parse_special": False}).encode()
        request = urllib.request.Request(
            f"{self.server.listening_address}/tokenize", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return [int(token) for token in json.load(answer)["tokens"]]

    def logps(self, ids: Sequence[int], number: int) -> dict[int, float]:
        """Return the log-probabilities of the `number` most likely next tokens by id."""
        # There are no log-probabilities after a token that ends the text or is a part of a character. So the token is
        # forced, which does not change them.
        request = {"prompt": list(ids), "n_predict": 1, "n_probs": number, "temperature": 0, "cache_prompt": False,
                   "logit_bias": [[self.forced, 1000.0]]}  # fmt: skip
        answer = self.server.handle_completions(request)
        place = answer["choices"][0]["logprobs"]["content"][0]
        return {int(one["id"]): float(one["logprob"]) for one in place["top_logprobs"]}


@contextlib.contextmanager
def loaded(path: Path, context: int = 512) -> Iterator[LlamaCpp]:
    """Load a GGUF file in llama.cpp for the block. Raises ModelError if llama.cpp refuses it."""
    import xllamacpp

    options = xllamacpp.CommonParams()
    options.model.path = str(path)
    options.n_ctx, options.n_parallel, options.n_gpu_layers = context, 1, 0
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS") or 1))
    options.cpuparams.n_threads = options.cpuparams_batch.n_threads = threads
    options.cache_type_k = options.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    options.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    options.warmup, options.ui, options.use_jinja, options.verbosity = False, False, False, -1
    with silent():
        try:
            server = xllamacpp.Server(options)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"llama.cpp can't load {path}: {error}", code="export") from error
        model = LlamaCpp(server)
        try:
            yield model
        finally:
            del server, model.server  # it logs its end


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Discard what the process writes to its error output within the block: llama.cpp logs each request there."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def compare(path: Path, tokenizer: Any, texts: Sequence[Sequence[int]], rounded: Sequence[Tensor], kind: str) -> Parity:
    """Return the difference between llama.cpp and the model with rounded weights.

    Args:
        path: the GGUF file.
        tokenizer: that of the trained model. Both have to split the fixed texts alike.
        texts: token ids.
        rounded: the logits [T, vocabulary] of the model for them, with the weights of the file.
        kind: the type of the file.

    Raises ParityError for other tokens or other log-probabilities.
    """
    from tunesmith_export.parity import TEXTS, Parity

    absolute = relative = 0.0
    same = []
    with loaded(path) as model:
        for text in TEXTS:
            expected, actual = tokenizer(text)["input_ids"], model.tokens(text)
            if list(expected) != actual:
                message = f"llama.cpp splits the text {text!r} into other tokens than the tokenizer of the model"
                help = "name the right pre-tokenizer: --pre NAME"
                raise ParityError(message, code="export-parity", help=help)
        for ids, logits in zip(texts, rounded, strict=True):
            for end in sorted({len(ids) // 2, len(ids)} - {0}):
                expected_logps = logits[end - 1].double().log_softmax(-1)
                logps = model.logps(ids[:end], min(CANDIDATES, logits.shape[-1]))
                places = sorted(number for number in logps if number < len(expected_logps))
                theirs = expected_logps.new_tensor([logps[number] for number in places])
                difference = theirs - expected_logps[places]
                absolute = max(absolute, float(difference.abs().max()))
                spread = expected_logps[places] - expected_logps[places].mean()
                relative = max(relative, float(difference.norm() / spread.norm()))
                same.append(max(logps, key=lambda number: logps[number]) == int(expected_logps.argmax()))
    allowed = QUANTIZED if kind.startswith("Q") else FLOAT
    parity = Parity(len(texts), len(same), absolute, relative, sum(same) / len(same), allowed)
    if not relative <= allowed:
        message = f"llama.cpp computes other log-probabilities than the model: {parity}"
        raise ParityError(message, code="export-parity", help="report the model's architecture")
    return parity
