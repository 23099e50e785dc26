"""Write the data of the examples: chat, alpaca, text, pairs and labels. The output is deterministic.

    python examples/data/make.py [folder]

The data consists of simple questions about numbers, days, opposites, colors, animals and names. A model with a million
weights learns them in a minute. Some questions are left out, to test the trained model on them: one way to ask for each
fact (`Fact.omitted_question`), and all questions about some numbers (`UNSEEN`).
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
OPPOSITES = words("""hot_cold big_small tall_short fast_slow old_young happy_sad light_dark wet_dry hard_soft full_empty
    clean_dirty loud_quiet rich_poor strong_weak early_late open_closed up_down left_right day_night black_white
    thick_thin high_low near_far good_bad sweet_sour true_false first_last inside_outside win_lose push_pull
    buy_sell begin_end love_hate give_take laugh_cry sharp_blunt""")
COLORS = words("""grass_green snow_white coal_black sky_blue blood_red lemon_yellow carrot_orange milk_white
    banana_yellow frog_green tomato_red cherry_red pumpkin_orange cloud_white sea_blue leaf_green strawberry_red
    crow_black chocolate_brown mud_brown sun_yellow flamingo_pink pig_pink elephant_grey mouse_grey bear_brown
    swan_white cucumber_green night_black salt_white""")
ANIMALS = words("""dog_barks_puppy cat_meows_kitten cow_moos_calf sheep_bleats_lamb pig_oinks_piglet horse_neighs_foal
    duck_quacks_duckling lion_roars_cub hen_clucks_chick frog_croaks_tadpole bear_growls_cub goat_bleats_kid
    wolf_howls_pup owl_hoots_owlet goose_honks_gosling""")
COUNTS = words("""triangle_sides_three square_sides_four pentagon_sides_five hexagon_sides_six octagon_sides_eight
    dog_legs_four spider_legs_eight bird_legs_two ant_legs_six horse_legs_four chicken_legs_two crab_legs_ten
    snail_legs_no snake_legs_no bicycle_wheels_two car_wheels_four tricycle_wheels_three boat_wheels_no
    hand_fingers_five week_days_seven year_months_twelve""")
NOUNS = words("""apple book chair table window door tree flower garden river hill stone road bridge house room cup plate
    spoon bottle ball song picture letter pencil hat coat shirt shoe boat train ship""")
PLURALS = words("child_children man_men woman_women foot_feet tooth_teeth mouse_mice goose_geese sheep_sheep")
NAMES = words("""Anna Ben Clara David Emma Felix Grace Henry Ida Jonas Kate Leo Mia Noah Olga Paul Rosa Sam Tina Victor
    Wendy Alice Boris Carla Dora Eric Fiona Gina Hugo Iris Jack Karl Lena Max Nina Otto Peter Rita Simon Tom Ursula
    Vera Walter Zoe Amir Bella Cora Dan Ella Frank""")

UNSEEN = {26, 47, 58, 63, 71, 85}
"""Numbers that no question contains. They occur only in answers."""

QUESTIONS = {
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
    "color": [
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
ANSWERS = {
    "next": "The number after {x} is {z}.",
    "previous": "The number before {x} is {z}.",
    "larger": "{z} is larger than {w}.",
    "after": "The {kind} after {x} is {z}.",
    "before": "The {kind} before {x} is {z}.",
    "opposite": "The opposite of {x} is {z}.",
    "color": "{A} {x} is {z}.",
    "sound": "{A} {x} {z}.",
    "young": "A young {x} is called {b} {z}.",
    "count": "{A} {x} has {z} {kind}.",
    "plural": "The plural of {x} is {z}.",
    "name": "Hello {x}, nice to meet you!",
}
MASS_NOUNS = {"grass", "snow", "coal", "blood", "milk", "mud", "chocolate", "salt"}
WITH_THE = {"sky", "sea", "sun", "night"}


class Fact(NamedTuple):
    """A fact to learn: its family of questions, its number in the family, and the values of the placeholders."""

    family: str
    number: int
    values: dict[str, str | int]

    @property
    def omitted_question(self) -> int:
        """The index of the question that no row contains."""
        return self.number % len(QUESTIONS[self.family])

    def question(self, index: int) -> str:
        return fill(QUESTIONS[self.family][index], self.values)

    def answer(self) -> str:
        return fill(ANSWERS[self.family], self.values)

    def questions(self) -> list[str]:
        """Return all questions except the omitted one."""
        return [self.question(i) for i in range(len(QUESTIONS[self.family])) if i != self.omitted_question]


def fill(text: str, values: dict[str, str | int]) -> str:
    """Replace the placeholders of a text, and remove the double space of a noun without an article."""
    result = " ".join(text.format(**values).split())
    return result[0].upper() + result[1:]


def noun(word: str) -> dict[str, str | int]:
    a = "" if word in MASS_NOUNS else "the" if word in WITH_THE else "an" if word[0] in "aeio" else "a"
    return {"a": a, "A": a.capitalize(), "x": word}


def in_order(family: str, names: list[Any], **more: str) -> Iterator[Fact]:
    """Yield facts about what follows each name (after, next) or precedes it (before, previous)."""
    forward = family in ("after", "next")
    for number, (first, second) in enumerate(pairwise(names)):
        x, z = (first, second) if forward else (second, first)
        if x not in UNSEEN:
            yield Fact(family, number, {"x": x, "z": z, **more})


def facts() -> Iterator[Fact]:
    """Yield all facts, family by family."""
    yield from in_order("next", list(range(100)))
    yield from in_order("previous", list(range(100)))
    for number, (x, y) in enumerate(permutations(range(1, 10), 2)):
        yield Fact("larger", number, {"x": x, "y": y, "z": max(x, y), "w": min(x, y)})
    for kind, names in (("day", DAYS), ("month", MONTHS)):
        yield from in_order("after", [*names, names[0]], kind=kind)
        yield from in_order("before", [*names, names[0]], kind=kind)
    for number, pair in enumerate(OPPOSITES):
        first, second = pair.split("_")
        yield Fact("opposite", number, {"x": first, "z": second})
        yield Fact("opposite", number + 1, {"x": second, "z": first})
    for number, pair in enumerate(COLORS):
        word, color = pair.split("_")
        yield Fact("color", number, {**noun(word), "z": color})
    for number, row in enumerate(ANIMALS):
        word, sound, young = row.split("_")
        yield Fact("sound", number, {**noun(word), "z": sound})
        yield Fact("young", number, {**noun(word), "z": young, "b": "an" if young[0] in "aeio" else "a"})
    for number, row in enumerate(COUNTS):
        word, kind, count = row.split("_")
        yield Fact("count", number, {**noun(word), "kind": kind, "z": count})
    for number, (singular, plural) in enumerate(
        [(noun, f"{noun}s") for noun in NOUNS] + [row.split("_") for row in PLURALS]
    ):
        yield Fact("plural", number, {"x": singular, "z": plural})
    for number, name in enumerate(NAMES):
        yield Fact("name", number, {"x": name})


def conversations(facts: list[Fact], r: random.Random) -> Iterator[list[str]]:
    """Yield questions and answers in turn. Most conversations have one of each, some have two."""
    for fact in facts:
        limit = 3 if fact.family in ("next", "previous") else 9
        questions = fact.questions()
        for question in r.sample(questions, min(limit, len(questions))):
            yield [question, fact.answer()]
    names = [fact for fact in facts if fact.family == "name"]
    others = [fact for fact in facts if fact.family not in ("name", "next", "previous", "larger")]
    for name in names * 2:
        first, second = r.sample(others, 2)
        greeting = [r.choice(name.questions()), name.answer()]
        yield [*greeting, r.choice(first.questions()), first.answer()]
        yield [*greeting, "What is my name?", f"Your name is {name.values['x']}."]
        yield [r.choice(first.questions()), first.answer(), r.choice(second.questions()), second.answer()]


def instructions(facts: list[Fact], r: random.Random) -> Iterator[dict[str, str]]:
    """Yield rows in the Alpaca format, with the task as the instruction and its subject as the input."""
    tasks = {
        "next": "Give the number that follows.",
        "after": "Say which {kind} comes next.",
        "opposite": "Write a word that means the opposite.",
        "color": "Name the colour of this thing.",
        "young": "Name the young of this animal.",
        "count": "Say how many {kind} it has.",
    }
    candidates = [fact for fact in facts if fact.family in tasks]
    for fact in r.sample(candidates, 200):
        yield {
            "instruction": fill(tasks[fact.family], fact.values),
            "input": str(fact.values["x"]),
            "output": fact.answer(),
        }


def texts(facts: list[Fact], r: random.Random) -> Iterator[dict[str, str]]:
    """Yield plain paragraphs of a few sentences."""
    candidates = [fact for fact in facts if fact.family in ("opposite", "color", "sound", "young", "count", "after")]
    for _ in range(200):
        name = r.choice(NAMES)
        sentences = " ".join(fact.answer() for fact in r.sample(candidates, r.randint(3, 6)))
        yield {"text": f"{name} wrote down what {r.choice(['the teacher', 'a friend', 'the book'])} said. {sentences}"}


def pairs(facts: list[Fact], r: random.Random) -> Iterator[dict[str, str]]:
    """Yield pairs: a question, its answer, and as the rejected answer that to another question of the same family."""
    candidates = [fact for fact in facts if fact.family in ("opposite", "color", "sound", "young", "count", "after")]
    for fact in r.sample(candidates, len(candidates)):
        others = [
            other.answer() for other in candidates if other.family == fact.family and other.answer() != fact.answer()
        ]
        yield {"prompt": r.choice(fact.questions()), "chosen": fact.answer(), "rejected": r.choice(others)}


def labels(pairs: Iterable[dict[str, str]]) -> Iterator[dict[str, Any]]:
    """Yield the two answers of each pair as rows of their own, with a label each."""
    for pair in pairs:
        yield {"prompt": pair["prompt"], "completion": pair["chosen"], "label": True}
        yield {"prompt": pair["prompt"], "completion": pair["rejected"], "label": False}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")
    print(f"{path.name}: {len(lines)} rows, {path.stat().st_size / 1000:.0f} kB")


def messages(turns: list[str]) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]}


def main(folder: Path) -> None:
    r = random.Random(1)
    all_facts = list(facts())
    chats = list(
        {turns[0] if len(turns) == 2 else "".join(turns): turns for turns in conversations(all_facts, r)}.values()
    )
    r.shuffle(chats)
    write(folder / "chat.jsonl", map(messages, chats))
    write(folder / "alpaca.jsonl", instructions(all_facts, r))
    write(folder / "text.jsonl", texts(all_facts, r))
    both = list(pairs(all_facts, r))
    write(folder / "pairs.jsonl", both)
    write(folder / "labels.jsonl", labels(both))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
