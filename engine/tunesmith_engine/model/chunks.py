"""Group requests into chunks that are generated together."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith_engine.model.generation import Request

CHUNK_TOKENS = 2**16
"""Tokens of a chunk, which are in its cache: prompts padded to the longest, and completions of maximum length. A model
with 8 billion parameters and grouped heads takes 8 GiB for them in bfloat16."""


@dataclass
class Piece:
    """Some of the completions of a request: numbers `first` to `first + count`, with their handle."""

    handle: int
    request: Request
    first: int
    count: int

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.count)

    @property
    def tokens(self) -> int:
        return self.count * self.request.max_new_tokens


def chunks_of(requests: dict[int, Request], ragged: bool) -> list[list[Piece]]:
    """Group requests by length into chunks of at most CHUNK_TOKENS tokens, or of one completion if that is longer.

    The chunks depend on the requests alone, because the last bits of logits depend on the shape of a batch. With
    `ragged` False, the prompts of a chunk have the same length.
    """
    chunks: list[list[Piece]] = []
    order = sorted(requests, key=lambda h: (len(requests[h].prompt), requests[h].max_new_tokens))
    for handle in order:
        request, first = requests[handle], 0
        length = len(request.prompt)
        while first < request.n:
            current = chunks[-1] if chunks else []
            used = (len(current) + 1) * length + sum(piece.tokens for piece in current)
            room = (CHUNK_TOKENS - used) // request.max_new_tokens
            fits = room > 0 and (ragged or len(current[-1].request.prompt) == length) if current else False
            if not fits:
                chunks.append(current := [])
                room = max(1, (CHUNK_TOKENS - length) // request.max_new_tokens)
            piece = Piece(handle, request, first, min(room, request.n - first))
            current.append(piece)
            first += piece.count
    return chunks


def why_invalid(request: Request) -> str | None:
    """Return the reason why the policy can't complete a request, or None if it can."""
    s = request.sampling
    problems = {
        "an empty prompt": not len(request.prompt),
        "n below 1": request.n < 1,
        "max_new_tokens below 1": request.max_new_tokens < 1,
        "a negative temperature": s.temperature < 0,
        "top_p outside of (0, 1]": not 0 < s.top_p <= 1,
        "a negative top_k": s.top_k < 0,
        "min_p outside of [0, 1]": not 0 <= s.min_p <= 1,
        "an empty stop string": "" in request.stop,
        "media, which the policy does not generate from": len(request.media) > 0,
    }
    return next((problem for problem, present in problems.items() if present), None)
