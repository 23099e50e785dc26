"""`preprocess --html` writes a self-contained page that shows data as text and is readable at any width."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from tests import tiny
from tunesmith import Example, segment
from tunesmith.cli import main
from tunesmith.cli.examples import shown_example
from tunesmith.cli.page import render
from tunesmith.cli.shown import ShownExample

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
HOSTILE = """</script></style></title>--><script>document.title='pwned'</script><img src=x onerror="a">'" onload='x'"""
STEERING = "a\x00\x1b[31m\u202e\u2066\ud800b\r"
TAGS = {  # tags of the page itself
    *(
        "html",
        "head",
        "meta",
        "link",
        "title",
        "style",
        "body",
        "header",
        "main",
        "footer",
        "section",
        "article",
        "div",
    ),
    *("h1", "h2", "h3", "h4", "p", "dl", "dt", "dd", "details", "summary", "table", "thead", "tbody", "tr", "th", "td"),
    *("div", "span", "label", "input", "i"),
}


class Page(HTMLParser):
    """The elements and texts of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = "".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] != "style":
            self.words.append(data)

    def tokens(self) -> list[dict[str, str | None]]:
        return [a for tag, a in self.elements if tag == "span" and "t" in (a.get("class") or "").split()]


def ids(text: str) -> list[int]:
    return tiny.tokenizer()(text.encode("utf-8", "ignore").decode()).input_ids  # type: ignore[no-any-return]


def run(name: str = "run.yaml", limit: int = 100, strategy: str = "drop") -> Any:
    core = SimpleNamespace(base_model="some/model", tokenizer_config=None, rl=None, sequence_len=limit,
                           excess_length_strategy=strategy)  # fmt: skip
    document = SimpleNamespace(name=name)
    return SimpleNamespace(tokenizer=tiny.tokenizer(), core=core, config=SimpleNamespace(document=document))


def spec(kind: str = "text", path: str = "data.jsonl") -> Any:
    settings = SimpleNamespace(path=path)
    return SimpleNamespace(group="datasets", index=0, settings=settings, type="some", row_kind=kind)


def page_of(*examples: Example, kind: str = "text", **named: Any) -> str:
    fake_run, entry = run(**named), spec(kind)
    seen = [shown_example(fake_run, entry, f"data.jsonl:{n}", example) for n, example in enumerate(examples, 1)]
    return render(fake_run, seen)


CHAT = Example.text(ids("the cat sees"), [0, 1, 0.5, *[1] * (len(ids("the cat sees")) - 3)],
                    notes=[(1, "role user"), (len(ids("the cat sees")), "assistant turn 1")])  # fmt: skip
PAIR = Example.branches(ids("the cat"), [ids(" sees a dog"), ids(" sees two birds")])


def test_every_token_is_a_span_with_id_weight_and_reason() -> None:
    example = Example.text([5, 6, 7], [0, 1, 0.5], notes=[(1, "role user"), (3, "assistant turn 1")])
    assert [token["title"] for token in Page(page_of(example)).tokens()] == [
        "id 5 · weight 0 · role user", "id 6 · weight 1 · assistant turn 1, weight 0.5 to 1",
        "id 7 · weight 0.5 · assistant turn 1, weight 0.5 to 1",
    ]  # fmt: skip
    text = "the cat sees two birds.\nA dog\u4f60"
    page = Page(page_of(Example.text(ids(text))))
    assert len(page.tokens()) == len(ids(text))
    assert "the cat sees two birds.↵\nA dog" in page.text and "\u4f60" in page.text


def test_page_counts_examples_tokens_reasons_and_dropped_examples() -> None:
    text = Page(
        page_of(CHAT, Example.text(ids("the cat")), Example.text(ids("the cat sees a dog"), 0.0), limit=99)
    ).text
    tokens = [len(ids(t)) for t in ("the cat sees", "the cat", "the cat sees a dog")]
    trained = tokens[0] - 1 + tokens[1]
    for name, number in {"examples": 3, "tokens": sum(tokens), "trained": trained, "dropped": 1}.items():
        assert f"{name}{number}" in text, name
    assert f"context{tokens[2]}0" in text and "dropped: nothing is trained" in text
    assert f"assistant turn{tokens[0] - 1}{tokens[0] - 1}" in text


def test_cut_tokens_split_borders_and_differing_answers_are_marked() -> None:
    cut = page_of(Example.text([5, 6, 7, 8]), limit=3, strategy="truncate")
    assert "cut: beyond sequence_len" in Page(cut).text and cut.count('<div class="stretch cut">') == 1
    split = Page(page_of(Example.text([5, 6, 7, 8]), limit=3, strategy="split")).text
    assert "example 2 begins here" in split
    pair = Page(page_of(PAIR, kind="pair"))
    differing = [token for token in pair.tokens() if "differs" in (token["class"] or "")]
    assert 0 < len(differing) < len(pair.tokens()) and pair.text.count("the cat") == 1


def test_wrong_steps_are_marked_differently_from_right_steps() -> None:
    import numpy as np

    ends = np.array([1.0, 1.0])
    steps = segment([5, 6], ends, fork=1, score_at=ends, label=np.array([1.0, 0.0]))
    steps.notes = [(1, "score of step 1: right"), (2, "score of step 2: wrong")]
    page = page_of(Example([segment([4]), steps]), kind="stepwise")
    assert re.findall(r'<div class="stretch (\w+)"><p class="why">([^<]*) <', page) == [
        ("masked", "context"), ("trained", "score of step 1: right"), ("wrong", "score of step 2: wrong")
    ]  # fmt: skip


def hostile() -> list[ShownExample]:
    """Return examples with markup and control characters in every text."""
    notes = [(len(ids(HOSTILE)), HOSTILE)]
    example = Example.text(ids(HOSTILE), notes=notes, columns={HOSTILE: 1.0}, fields={HOSTILE: HOSTILE + STEERING})
    steered = Example.text(ids(STEERING), notes=[(len(ids(STEERING)), STEERING)], fields={"a": STEERING})
    entry = spec(HOSTILE + STEERING, HOSTILE + STEERING)
    return [shown_example(run(), entry, HOSTILE + STEERING, tree) for tree in (example, steered)]


def test_markup_in_data_is_shown_as_text() -> None:
    text = render(run(HOSTILE), hostile())
    page = Page(text)
    assert {tag for tag, _ in page.elements} <= TAGS
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.text.count("<script>document.title='pwned'</script>") > 5


def test_control_characters_are_escaped() -> None:
    text = render(run(STEERING), hostile())
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text)
    assert "a\\x00\\x1b[31m\\u202e\\u2066\\ud800b\\r" in Page(text).text


def test_page_loads_nothing_and_runs_no_script() -> None:
    text = page_of(CHAT, PAIR)
    assert "://" not in text and "url(" not in text and "@import" not in text and "<script" not in text
    page = Page(text)
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert links == ["data:,"]
    [policy] = [a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in (policy or "") and "script-src" not in (policy or "")


def test_command_writes_the_page_or_reports_why_not(tmp_path: Path) -> None:
    path = tiny.sft_config(tmp_path)
    arguments = ["preprocess", str(path), "--examples", "3", "--html"]
    result = CliRunner().invoke(main, [*arguments, str(tmp_path / "page.html")])
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'page.html'}: 3 examples\n")
    page = Page((tmp_path / "page.html").read_text("utf-8"))
    assert sum(tag == "article" for tag, _ in page.elements) == 3 and "assistant turn 1" in page.text
    result = CliRunner().invoke(main, [*arguments, str(tmp_path / "no" / "page.html")])
    assert result.exit_code == 5 and "page.html can't be written: No such file or directory" in result.stderr


# in a browser

MEASURE = """<script>
document.documentElement.style.width = "WIDTHpx";  // a browser window has a minimum width, which is wider than a phone
const edges = [...document.querySelectorAll("body *")].map((element) => element.getBoundingClientRect().right);
document.body.dataset.width = Math.ceil(Math.max(...edges));
</script>"""
in_browser = pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} is installed")


def chromium(folder: Path, *arguments: str) -> str:
    assert CHROMIUM
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder / 'profile'}", *arguments]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert completed.returncode == 0, completed.stderr[-2000:]
    return completed.stdout


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Write a page with a pair, a long word, a cut example and markup in the data."""
    fake_run = run(HOSTILE, 40, "truncate")
    long = Example.text(ids("w" * 400 + " the cat" * 40), notes=[(30, "reason" * 30)])
    pair = shown_example(fake_run, spec("pair"), "a" * 200, PAIR)
    cut = shown_example(fake_run, spec(), "data.jsonl:2", long)
    (tmp_path / "page.html").write_text(render(fake_run, [pair, cut, *hostile()]), "utf-8")
    return tmp_path / "page.html"


@in_browser
@pytest.mark.parametrize("width", [400, 1400])
def test_page_fits_the_window_and_runs_no_markup_of_the_data(page: Path, width: int) -> None:
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8"))
    page.write_text(text.replace("</body>", f"{MEASURE.replace('WIDTH', str(width))}</body>"), "utf-8")
    dom = chromium(page.parent, f"--window-size={width},900", "--dump-dom", page.as_uri())
    assert 0 < int(re.findall(r'data-width="(\d+)"', dom)[0]) <= width
    assert "pwned</title>" not in dom and "<img" not in dom


@in_browser
@pytest.mark.parametrize(("scheme", "light"), [(1, True), (0, False)], ids=["light", "dark"])
def test_page_has_colors_and_follows_the_color_scheme(page: Path, scheme: int, light: bool) -> None:
    image = pytest.importorskip("PIL.Image")
    shot = page.parent / "page.png"
    scheme_option = f"--blink-settings=preferredColorScheme={scheme}"
    chromium(page.parent, scheme_option, "--window-size=1000,1600", f"--screenshot={shot}", page.as_uri())
    picture = image.open(shot).convert("RGB")
    paper = picture.convert("L").getpixel((3, 3))
    assert paper > 200 if light else paper < 60
    colors = [color for number, color in picture.getcolors(1 << 24) if number > 200]
    assert any(g > r + 15 and g > b + 8 for r, g, b in colors), "no pixel is green"
    assert any(r > g + 15 and r > b + 15 for r, g, b in colors), "no pixel is red"
