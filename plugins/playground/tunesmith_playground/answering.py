"""Generate the answers of several models in turns, and report their texts as they grow."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence

from tunesmith import Request
from tunesmith_playground.conversation import Answer
from tunesmith_playground.decoding import TextStream, Thinking
from tunesmith_playground.speakers import Speaker

TOKENS_IN_TURN = 4
"""Tokens that a model draws before it is another one's turn. To switch an adapter off and on visits all layers."""
PATIENCE = 30.0
"""Seconds to wait for the threads of an answer that was stopped; a token of a large model takes a while."""


class Stopped(Exception):
    """Raised within a generation that the user stopped."""


class Answering:
    """The answers of models to a request each. Iterate over it to get (side, text) as the texts grow, and (side, None)
    when one is complete.

    Each model runs on a thread, and only one of them at a time: two speakers may share the weights of a model, once
    with its adapter and once without. `answers` are complete when the iteration ends. An error of a model is raised by
    the iteration.
    """

    def __init__(self, speakers: Sequence[Speaker], requests: Sequence[Request]):
        self.speakers, self.requests = speakers, requests
        self.answers = [Answer() for _ in speakers]
        self.thinking = [speaker.thinks(list(one.prompt)) for speaker, one in zip(speakers, requests, strict=True)]
        self._events: queue.Queue[tuple[int, str | BaseException | None]] = queue.Queue()
        self._stop = threading.Event()
        self._baton = threading.Condition()
        self._running = list(range(len(speakers)))
        self._current = 0
        self._threads = [threading.Thread(target=self._run, args=(side,), daemon=True) for side in self._running]

    def stop(self) -> None:
        """End the answers at the next token. What they have so far is kept."""
        self._stop.set()

    def __iter__(self) -> Iterator[tuple[int, str | None]]:
        for thread in self._threads:
            thread.start()
        left, patience = len(self._threads), PATIENCE
        try:
            while left:
                side, value = self._events.get()
                if isinstance(value, BaseException):
                    raise value
                left -= value is None
                yield side, value
        except KeyboardInterrupt:  # the user leaves, and does not wait for a token that takes long
            patience = 0.0
            raise
        finally:
            self.stop()
            for thread in self._threads:
                thread.join(patience)

    def _run(self, side: int) -> None:
        """Generate one answer. This is the code of a thread."""
        try:
            self._wait(side)
            self._generate(side)
        except BaseException as error:
            self._events.put((side, error))
        finally:
            self._pass(side, done=True)
            self._events.put((side, None))

    def _generate(self, side: int) -> None:
        speaker, request, answer = self.speakers[side], self.requests[side], self.answers[side]
        stream = TextStream(speaker.model.tokenizer, request.stop)
        switched, start = contextlib.ExitStack(), time.monotonic()

        def report(text: str) -> None:
            if text:
                answer.text += text
                self._events.put((side, text))

        def on_token(index: int, number: int, token: int) -> None:
            answer.tokens += 1
            report(stream.add(token))
            if self._stop.is_set():
                raise Stopped
            if len(self._running) > 1 and answer.tokens % TOKENS_IN_TURN == 0:
                switched.close()
                paused = time.monotonic()
                self._pass(side)
                self._wait(side)
                answer.seconds -= time.monotonic() - paused
                switched.enter_context(speaker.active())

        if self.thinking[side]:
            answer.text = f"{Thinking.OPEN}\n"  # the prompt has the mark, and the saved answer needs it
        try:
            switched.enter_context(speaker.active())
            ((completion,),) = speaker.model.policy.generate([request], on_token)
            answer.ending = completion.finish_reason
        except Stopped:
            answer.ending = "abort"
        finally:
            switched.close()
            report(stream.finish())
            answer.seconds += time.monotonic() - start

    def _wait(self, side: int) -> None:
        with self._baton:
            self._baton.wait_for(lambda: self._current == side)

    def _pass(self, side: int, done: bool = False) -> None:
        """Let the next model draw tokens."""
        with self._baton:
            at = self._running.index(side)
            following = self._running[at + 1 :] + self._running[:at]
            if done:
                self._running.remove(side)
            self._current = following[0] if following else side if not done else -1
            self._baton.notify_all()
