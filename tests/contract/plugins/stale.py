"""A generator of random completions: some have no end, some are aborted, and some tokens come from older weights."""

import numpy as np

from tunesmith import Completion, Generator, Plugin, hookimpl

plugin = Plugin(offers={"generators": {"stale": None}})


class Stale(Generator):
    def __init__(self):
        self.results, self.version = {}, 0

    def submit(self, requests):
        handles = range(len(self.results), len(self.results) + len(requests))
        self.results |= {h: [self.answer(r, k) for k in range(r.n)] for h, r in zip(handles, requests, strict=True)}
        return list(handles)

    def answer(self, request, k):
        random = np.random.default_rng([*request.seed, self.version, k])
        reason = random.choice(["stop", "stop", "length", "abort"])
        most = request.max_new_tokens
        length = most if reason == "length" else random.integers(reason == "stop", most)
        ones, tokens = np.ones(length, np.float32), random.integers(3, 300, length).astype(np.int32)
        versions = np.maximum(0, self.version - random.choice([0, 0, 1, 2, 3], length)).astype(np.int32)
        return Completion(tokens, -ones, ones, ones > 0, str(reason), versions)

    def collect(self, handles, wait=True):
        return {handle: self.results[handle] for handle in handles}

    def abort(self, handles): ...

    def push(self, policy):
        self.version += 1
        return self.version


@hookimpl
def build_generator(run):
    return Stale()
