"""Writes the data of the examples: chat, alpaca, text and pairs.jsonl, the same bytes each time.

    python examples/data/make.py [folder]

Simple questions in simple English: numbers, days, opposites, colours, animals, names. A model with a million weights
learns them in a minute, and what it learned shows on questions it has not seen: of the ways to ask for a fact one is
left out (`Fact.left_out`), and some numbers are asked about in no way at all (`UNSEEN`).
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any, NamedTuple


def words(text: str) -> list[str]:
    return text.split()


DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words("January February March April May June July August September October November December")
OPPOSITES = words("""hot-cold big-small tall-short fast-slow old-young happy-sad light-dark wet-dry hard-soft full-empty
    clean-dirty loud-quiet rich-poor strong-weak early-late open-closed up-down left-right day-night black-white
    thick-thin high-low near-far good-bad sweet-sour true-false first-last inside-outside win-lose push-pull
    buy-sell begin-end love-hate give-take laugh-cry sharp-blunt""")
COLOURS = words("""grass-green snow-white coal-black sky-blue blood-red lemon-yellow carrot-orange milk-white
    banana-yellow frog-green tomato-red cherry-red pumpkin-orange cloud-white sea-blue leaf-green strawberry-red
    crow-black chocolate-brown mud-brown sun-yellow flamingo-pink pig-pink elephant-grey mouse-grey bear-brown
    swan-white cucumber-green night-black salt-white""")
ANIMALS = words("""dog-barks-puppy cat-meows-kitten cow-moos-calf sheep-bleats-lamb pig-oinks-piglet horse-neighs-foal
    duck-quacks-duckling lion-roars-cub hen-clucks-chick frog-croaks-tadpole bear-growls-cub goat-bleats-kid
    wolf-howls-pup owl-hoots-owlet goose-honks-gosling""")
COUNTS = words("""triangle-sides-three square-sides-four pentagon-sides-five hexagon-sides-six octagon-sides-eight
    dog-legs-four spider-legs-eight bird-legs-two ant-legs-six horse-legs-four chicken-legs-two crab-legs-ten
    snail-legs-no snake-legs-no bicycle-wheels-two car-wheels-four tricycle-wheels-three boat-wheels-no
    hand-fingers-five week-days-seven year-months-twelve""")
NOUNS = words("""apple book chair table window door tree flower garden river hill stone road bridge house room cup plate
    spoon bottle ball song picture letter pencil hat coat shirt shoe boat train ship""")
PLURALS = words("child-children man-men woman-women foot-feet tooth-teeth mouse-mice goose-geese sheep-sheep")
NAMES = words("""Anna Ben Clara David Emma Felix Grace Henry Ida Jonas Kate Leo Mia Noah Olga Paul Rosa Sam Tina Victor
    Wendy Alice Boris Carla Dora Eric Fiona Gina Hugo Iris Jack Karl Lena Max Nina Otto Peter Rita Simon Tom Ursula
    Vera Walter Zoe Amir Bella Cora Dan Ella Frank""")

UNSEEN = {26, 47, 58, 63, 71, 85}
"""Numbers that nobody asks about, in whatever words; they are there as answers only."""

ASK = {
    "next": [
        "What number comes after {x}?", "Which number follows {x}?", "Please tell me the number after {x}.",
        "I count to {x}. What comes next?", "What is the next number after {x}?", "What is one more than {x}?",
    ],
    "previous": [
        "What number comes before {x}?", "Which number is just before {x}?", "Please tell me the number before {x}.",
        "I count down to {x}. What comes next?", "What is one less than {x}?",
    ],
    "larger": [
        "Which is larger, {x} or {y}?", "Which number is bigger, {x} or {y}?", "Is {x} or {y} the larger number?",
        "Please tell me the larger of {x} and {y}.",
    ],
    "after": [
        "What {kind} comes after {x}?", "Which {kind} follows {x}?", "What is the {kind} after {x}?",
        "Tell me the {kind} that comes after {x}.", "It is {x} now. Which {kind} is next?",
        "Can you tell me what {kind} comes after {x}?",
    ],
    "before": [
        "What {kind} comes before {x}?", "Which {kind} is just before {x}?", "What is the {kind} before {x}?",
        "Tell me the {kind} that comes before {x}.", "It is {x} now. Which {kind} was just over?",
        "Can you tell me what {kind} comes before {x}?",
    ],
    "opposite": [
        "What is the opposite of {x}?", "Tell me the opposite of {x}.", "Which word means the opposite of {x}?",
        "Do you know the opposite of {x}?", "I need a word that is the opposite of {x}.",
        "Can you tell me the opposite of {x}?",
    ],
    "colour": [
        "What colour is {a} {x}?", "Which colour does {a} {x} have?", "Tell me the colour of {a} {x}.",
        "I want to paint {a} {x}. Which colour do I need?", "Do you know the colour of {a} {x}?",
    ],
    "sound": [
        "What does {a} {x} do when it makes a sound?", "Which sound does {a} {x} make?", "How does {a} {x} talk?",
        "What do I hear when {a} {x} is near?", "Tell me the sound of {a} {x}.",
    ],
    "young": [
        "What is a young {x} called?", "What do you call a baby {x}?", "Tell me the word for a young {x}.",
        "What is the name for the young of {a} {x}?", "My {x} had a baby. What is it called?",
    ],
    "count": [
        "How many {kind} does {a} {x} have?", "Tell me how many {kind} {a} {x} has.",
        "Do you know how many {kind} {a} {x} has?", "I look at {a} {x}. How many {kind} are there?",
    ],
    "plural": [
        "What is the plural of {x}?", "Tell me the plural of {x}.", "I have one {x}. What are two called?",
        "How do you say {x} when there are many?",
    ],
    "name": ["Hello, I am {x}.", "Hi! My name is {x}.", "Good morning, {x} is my name.", "Hello! People call me {x}."],
}  # fmt: skip
SAY = {
    "next": "The number after {x} is {z}.",
    "previous": "The number before {x} is {z}.",
    "larger": "{z} is larger than {w}.",
    "after": "The {kind} after {x} is {z}.",
    "before": "The {kind} before {x} is {z}.",
    "opposite": "The opposite of {x} is {z}.",
    "colour": "{A} {x} is {z}.",
    "sound": "{A} {x} {z}.",
    "young": "A young {x} is called {b} {z}.",
    "count": "{A} {x} has {z} {kind}.",
    "plural": "The plural of {x} is {z}.",
    "name": "Hello {x}, nice to meet you!",
}
ONLY_ONE = {"grass", "snow", "coal", "blood", "milk", "mud", "chocolate", "salt"}
THE = {"sky", "sea", "sun", "night"}


class Fact(NamedTuple):
    """Something to learn: the family of its questions, its number in it, and what fills the blanks of the texts."""

    family: str
    number: int
    blanks: dict[str, str | int]

    @property
    def left_out(self) -> int:
        """The way to ask that is in no row."""
        return self.number % len(ASK[self.family])

    def ask(self, way: int) -> str:
        return fill(ASK[self.family][way], self.blanks)

    def say(self) -> str:
        return fill(SAY[self.family], self.blanks)

    def questions(self) -> list[str]:
        """The ways to ask, without the one that is left out."""
        return [self.ask(way) for way in range(len(ASK[self.family])) if way != self.left_out]


def fill(text: str, blanks: dict[str, str | int]) -> str:
    """A text with its blanks filled, without the double space of a noun that has no article."""
    filled = " ".join(text.format(**blanks).split())
    return filled[0].upper() + filled[1:]


def noun(word: str) -> dict[str, str | int]:
    a = "" if word in ONLY_ONE else "the" if word in THE else "an" if word[0] in "aeio" else "a"
    return {"a": a, "A": a.capitalize(), "x": word}


def in_order(family: str, names: list[Any], **more: str) -> Iterator[Fact]:
    """What follows each of the names (after, next) or stands before it (before, previous)."""
    forward = family in ("after", "next")
    for number, (one, other) in enumerate(pairwise(names)):
        x, z = (one, other) if forward else (other, one)
        if x not in UNSEEN:
            yield Fact(family, number, {"x": x, "z": z, **more})


def facts() -> Iterator[Fact]:
    """Everything there is to learn, family by family."""
    yield from in_order("next", list(range(100)))
    yield from in_order("previous", list(range(100)))
    for number, (x, y) in enumerate(permutations(range(1, 10), 2)):
        yield Fact("larger", number, {"x": x, "y": y, "z": max(x, y), "w": min(x, y)})
    for kind, names in (("day", DAYS), ("month", MONTHS)):
        yield from in_order("after", [*names, names[0]], kind=kind)
        yield from in_order("before", [*names, names[0]], kind=kind)
    for number, pair in enumerate(OPPOSITES):
        one, other = pair.split("-")
        yield Fact("opposite", number, {"x": one, "z": other})
        yield Fact("opposite", number + 1, {"x": other, "z": one})
    for number, pair in enumerate(COLOURS):
        word, colour = pair.split("-")
        yield Fact("colour", number, {**noun(word), "z": colour})
    for number, row in enumerate(ANIMALS):
        word, sound, young = row.split("-")
        yield Fact("sound", number, {**noun(word), "z": sound})
        yield Fact("young", number, {**noun(word), "z": young, "b": "an" if young[0] in "aeio" else "a"})
    for number, row in enumerate(COUNTS):
        word, kind, many = row.split("-")
        yield Fact("count", number, {**noun(word), "kind": kind, "z": many})
    for number, (one, many) in enumerate([(noun, f"{noun}s") for noun in NOUNS] + [row.split("-") for row in PLURALS]):
        yield Fact("plural", number, {"x": one, "z": many})
    for number, name in enumerate(NAMES):
        yield Fact("name", number, {"x": name})


def conversations(known: list[Fact], draw: random.Random) -> Iterator[list[str]]:
    """Questions and answers in turn. Most are one of each; some go on."""
    for fact in known:
        few = 3 if fact.family in ("next", "previous") else 9
        asked = fact.questions()
        for question in draw.sample(asked, min(few, len(asked))):
            yield [question, fact.say()]
    names = [fact for fact in known if fact.family == "name"]
    others = [fact for fact in known if fact.family not in ("name", "next", "previous", "larger")]
    for name in names * 2:
        first, second = draw.sample(others, 2)
        hello = [draw.choice(name.questions()), name.say()]
        yield [*hello, draw.choice(first.questions()), first.say()]
        yield [*hello, "What is my name?", f"Your name is {name.blanks['x']}."]
        yield [draw.choice(first.questions()), first.say(), draw.choice(second.questions()), second.say()]


def instructions(known: list[Fact], draw: random.Random) -> Iterator[dict[str, str]]:
    """Rows of the Alpaca format: the task apart from what it is about."""
    tasks = {
        "next": "Give the number that follows.",
        "after": "Say which {kind} comes next.",
        "opposite": "Write a word that means the opposite.",
        "colour": "Name the colour of this thing.",
        "young": "Name the young of this animal.",
        "count": "Say how many {kind} it has.",
    }
    suited = [fact for fact in known if fact.family in tasks]
    for fact in draw.sample(suited, 200):
        yield {
            "instruction": fill(tasks[fact.family], fact.blanks),
            "input": str(fact.blanks["x"]),
            "output": fact.say(),
        }


def texts(known: list[Fact], draw: random.Random) -> Iterator[dict[str, str]]:
    """Plain paragraphs of a few sentences each."""
    plain = [fact for fact in known if fact.family in ("opposite", "colour", "sound", "young", "count", "after")]
    for _ in range(200):
        name = draw.choice(NAMES)
        told = " ".join(fact.say() for fact in draw.sample(plain, draw.randint(3, 6)))
        yield {"text": f"{name} wrote down what {draw.choice(['the teacher', 'a friend', 'the book'])} said. {told}"}


def pairs(known: list[Fact], draw: random.Random) -> Iterator[dict[str, str]]:
    """A question, its answer, and the answer to another question of the same kind."""
    suited = [fact for fact in known if fact.family in ("opposite", "colour", "sound", "young", "count", "after")]
    for fact in draw.sample(suited, len(suited)):
        others = [other.say() for other in suited if other.family == fact.family and other.say() != fact.say()]
        yield {"prompt": draw.choice(fact.questions()), "chosen": fact.say(), "rejected": draw.choice(others)}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    print(f"{path.name}: {len(lines)} rows, {path.stat().st_size / 1000:.0f} kB")


def messages(turns: list[str]) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]}


def main(folder: Path) -> None:
    draw = random.Random(1)
    known = list(facts())
    chats = list(
        {turns[0] if len(turns) == 2 else "".join(turns): turns for turns in conversations(known, draw)}.values()
    )
    draw.shuffle(chats)
    write(folder / "chat.jsonl", map(messages, chats))
    write(folder / "alpaca.jsonl", instructions(known, draw))
    write(folder / "text.jsonl", texts(known, draw))
    write(folder / "pairs.jsonl", pairs(known, draw))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
