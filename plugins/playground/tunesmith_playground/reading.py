"""Read messages: lines, or several lines as one message."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from tunesmith_playground.display import colored

FENCE = '"""'
MORE = "... "


def read_message(line: Callable[[str], str | None], prompt: str) -> str | None:
    r"""Return the next message; None at the end of the input.

    A line that ends with a backslash continues on the next line. A line that begins with three quotation marks begins
    a message that ends with a line which ends with them.

    Args:
        line: returns the next line without its end, for a prompt to show; None at the end.
        prompt: shown before the first line.
    """
    text = line(prompt)
    if text is None:
        return None
    if text.lstrip().startswith(FENCE):
        text = text.lstrip().removeprefix(FENCE)
        while not text.rstrip().endswith(FENCE):
            if (following := line(MORE)) is None:
                return text.strip("\n")
            text += f"\n{following}"
        return text.rstrip().removesuffix(FENCE).strip("\n")
    while text.endswith("\\"):
        if (following := line(MORE)) is None:
            return text[:-1]
        text = f"{text[:-1]}\n{following}"
    return text


def script_line(prompt: str) -> str | None:
    """Return the next line of a file or a pipe on stdin."""
    line = sys.stdin.readline()
    return line.removesuffix("\n").removesuffix("\r") if line else None


def terminal_line(prompt: str) -> str | None:
    """Return a line that the user edits on a terminal; None for Ctrl-D. Raises KeyboardInterrupt."""
    try:
        return input(_styled(prompt))
    except EOFError:
        sys.stdout.write("\n")
        return None


def complete_with(words: Iterable[str]) -> None:
    """Switch on editing and a history on the terminal, and complete commands with the tab key."""
    try:
        import readline
    except ImportError:  # Windows has no readline, and its console edits lines itself
        return
    commands = sorted(words)

    def complete(text: str, state: int) -> str | None:
        matches = [word for word in commands if word.startswith(text)] if text.startswith("/") else []
        return matches[state] if state < len(matches) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n")
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")


def _styled(prompt: str) -> str:
    """Return a prompt in bold, in the marks that tell readline which characters take no room."""
    if not colored():
        return prompt
    return f"\x01\x1b[1m\x02{prompt}\x01\x1b[0m\x02"
