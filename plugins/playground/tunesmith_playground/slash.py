"""The commands that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith import ConfigError
from tunesmith.spelling import suggestion
from tunesmith_playground.rows import append_rows, read_conversation

if TYPE_CHECKING:
    from tunesmith_playground.conversation import Turn
    from tunesmith_playground.session import Session

MULTILINE = (
    'End a line with \\ to continue it, or write """ around several lines. Begin a message that starts with / by //.'
)


def run(session: Session, text: str) -> bool:
    """Carry out a command. Return False to end the session. Raises ConfigError for an unknown one."""
    name, _, argument = text[1:].strip().partition(" ")
    if name in ("quit", "exit", "q"):
        return False
    if name not in COMMANDS:
        help = suggestion(name, COMMANDS, "/help").replace("did you mean '", "did you mean '/")
        raise ConfigError(f"unknown command: /{name}", where="command", help=help, code="usage")
    COMMANDS[name][2](session, argument.strip())
    return True


def new(session: Session, argument: str) -> None:
    session.finish()
    session.say("new conversation")


def system(session: Session, argument: str) -> None:
    session.set_system(argument)
    session.say("system message set" if argument else "no system message")


def set_key(session: Session, argument: str) -> None:
    key, _, value = argument.replace("=", " ", 1).partition(" ")
    if key:
        session.settings = session.settings.changed({key.replace("-", "_"): value.strip()})
    lines = session.settings.lines()
    session.say("\n".join(line for line in lines if not key or line.split()[0] == key.replace("-", "_")))


def retry(session: Session, argument: str) -> None:
    turn = _last(session, "retry")
    answers, turn.answers = turn.answers, []
    turn.attempt += 1
    try:
        session.answer()
    except BaseException:
        turn.answers, turn.attempt = answers, turn.attempt - 1
        raise


def undo(session: Session, argument: str) -> None:
    _last(session, "undo")
    turn = session.conversation.turns.pop()
    session.say(f"taken back: {turn.user.splitlines()[0][:60] if turn.user else 'the last continuation'}")


def save(session: Session, argument: str) -> None:
    path = Path(argument).expanduser() if argument else session.save
    if path is None:
        raise ConfigError("/save needs the name of a file", where="command", help="/save FILE", code="usage")
    rows = session.rows()
    if not rows:
        raise ConfigError("nothing to save yet", where="command", help="write a message first", code="usage")
    append_rows(path, rows)
    whose = f", with the answers of {session.speakers[0].name}" if len(session.speakers) > 1 else ""
    session.say(f"saved to {path}: {len(rows)} {'row' if len(rows) == 1 else 'rows'}{whose}")


def load(session: Session, argument: str) -> None:
    if not argument or not session.chats:
        message = (
            "/load needs the name of a file" if not argument else "a model without a chat template has no messages"
        )
        raise ConfigError(message, where="command", help="/load FILE" if not argument else None, code="usage")
    conversation = read_conversation(Path(argument).expanduser(), len(session.speakers))
    session.finish()
    session.conversation = conversation
    session.say(f"{len(conversation.turns)} {'turn' if len(conversation.turns) == 1 else 'turns'} loaded")


def tokens(session: Session, argument: str) -> None:
    for side, speaker in enumerate(session.speakers):
        count = len(speaker.prompt(session.conversation, side)) if session.conversation.messages(side) else 0
        left = f"; {max(0, speaker.context - count):,} of {speaker.context:,} left" if speaker.context else ""
        name = f"{speaker.name}: " if len(session.speakers) > 1 else ""
        session.say(f"{name}{count:,} tokens{left}")


def show_help(session: Session, argument: str) -> None:
    lines = [f"/{f'{name} {usage}'.strip():<18} {help}" for name, (usage, help, _) in COMMANDS.items()]
    session.say("\n".join([*lines, MULTILINE]))


def _last(session: Session, name: str) -> Turn:
    if not session.conversation.turns:
        raise ConfigError(f"nothing to {name} yet", where="command", help="write a message first", code="usage")
    return session.conversation.turns[-1]


COMMANDS: dict[str, tuple[str, str, Callable[[Session, str], None]]] = {
    "new": ("", "begin a new conversation; the system message stays", new),
    "system": ("TEXT", "set the system message; without a text, drop it", system),
    "set": ("KEY VALUE", "change a setting of sampling; without arguments, show all", set_key),
    "retry": ("", "answer the last message again, with other random numbers", retry),
    "undo": ("", "take back the last message and its answer", undo),
    "save": ("FILE", "append the conversation to a file, as a row of training data", save),
    "load": ("FILE", "continue the conversation in the last row of a file", load),
    "tokens": ("", "count the tokens of the conversation, and what is left of the context", tokens),
    "help": ("", "list commands", show_help),
    "quit": ("", "leave; so does Ctrl-D", show_help),
}
"""Name -> arguments, what it does, and the function."""
