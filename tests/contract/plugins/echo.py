"""A generator that answers with tokens drawn from the seed of a request, and counts its calls in a file."""

import numpy as np

from tunesmith import Completion, Generator, Plugin, hookimpl

plugin = Plugin(offers={"generators": {"echo": None}})


class Echo(Generator):
    def __init__(self, calls):
        self.calls, self.results, self.version = calls, {}, 0

    def submit(self, requests):
        first = len(self.results)
        with self.calls.open("a") as file:
            for handle, request in enumerate(requests, first):
                file.write(f"{request.seed}\n")
                self.results[handle] = [self.answer(request, k) for k in range(request.n)]
        return list(range(first, first + len(requests)))

    def answer(self, request, k):
        random = np.random.default_rng([*request.seed, k])
        tokens = random.integers(3, 300, random.integers(1, request.max_new_tokens + 1)).astype(np.int32)
        ones = np.ones(len(tokens), np.float32)
        return Completion(tokens, -ones, ones, ones > 0, "stop", np.full(len(tokens), self.version, np.int32))

    def collect(self, handles, wait=True):
        return {handle: self.results[handle] for handle in handles}

    def abort(self, handles):
        pass

    def push(self, policy):
        self.version += 1
        return self.version


@hookimpl
def build_generator(run):
    return Echo(run.output_dir / "calls.txt")
