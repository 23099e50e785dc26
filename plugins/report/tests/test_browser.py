"""A browser shows the page completely, runs only its own script, and makes no requests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tunesmith_report.page import render

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=3000")
POINT_AT = """<script>{
const area = document.querySelector(".large .area"), box = area.getBoundingClientRect();
area.dispatchEvent(new PointerEvent("pointermove", {clientX: box.left + box.width / 2, bubbles: true}));
document.documentElement.style.width = "WIDTHpx";  // a browser window can't be as narrow as a phone
const edges = [...document.querySelectorAll("body *")].map((element) => element.getBoundingClientRect().right);
document.body.dataset.width = Math.ceil(Math.max(...edges));
}</script>"""

Image = pytest.importorskip("PIL.Image")  # installed with tensorboard
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"install one of {', '.join(NAMES)}")


def chromium(folder: Path, *arguments: str) -> str:
    assert CHROMIUM
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder / 'profile'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """Write a page with samples, several curves, an optional logarithmic axis, and markup in the data."""
    lines = [{"step": s, "loss": 50.0 / s, "rewards/chosen": s / 9, "eval_loss": 40.0 / s} for s in range(1, 102)]
    markup = (
        "<script>document.title = 'pwned'</script><img src=http://image.example onerror=\"document.title = 'pwned'\">"
    )
    sample = {"when": "before", "step": 0, "prompt": markup, "completion": "word " * 300 + "w" * 300}
    (tmp_path / "run.json").write_text(
        json.dumps({"status": "done", "config": {"k": "v" * 300}, "notes": {"n": markup}})
    )
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    (tmp_path / "report.html").write_text(render(tmp_path), "utf-8")
    return tmp_path / "report.html"


def test_the_browser_shows_the_curves_and_no_markup_from_the_data(page: Path) -> None:
    dom = chromium(page.parent, "--dump-dom", page.as_uri())
    assert (
        len(re.findall(r'<figure class="chart', dom)) == 2
        and len(re.findall(r'<path class="line train" d="M', dom)) >= 2
    )
    assert "pwned</title>" not in dom and "<img" not in dom and dom.count("<script>") == 1
    assert re.search(r"<title>[^<]*: done</title>", dom)


class Listener(BaseHTTPRequestHandler):
    """A proxy for all requests of the browser, which records and refuses them."""

    requests: ClassVar[list[str]] = []

    def answer(self) -> None:
        self.requests.append(self.path)
        self.send_error(404)

    do_GET = do_CONNECT = do_POST = answer

    def log_message(self, format: str, *args: Any) -> None: ...


def requested_hosts(page: Path) -> set[str]:
    """Return the hosts below .example that a browser requests while it shows a page."""
    Listener.requests.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chromium(page.parent, f"--proxy-server=127.0.0.1:{server.server_port}", "--dump-dom", page.as_uri())
        server.shutdown()
    return {host for path in Listener.requests for host in re.findall(r"[\w.]+\.example", path)}


@pytest.mark.slow
def test_the_page_makes_no_requests(page: Path) -> None:
    text = page.read_text("utf-8")
    assert requested_hosts(page) == set()
    tags = '<img src="{}image{}"><link rel="stylesheet" href="{}style{}"><iframe src="{}frame{}"></iframe></body>'
    external = tags.format(*["http://", ".example/x"] * 3)
    page.write_text(text.replace("</body>", external), "utf-8")
    assert requested_hosts(page) == set(), "the content security policy blocks requests"
    page.write_text(page.read_text("utf-8").replace("Content-Security-Policy", "x-none"), "utf-8")
    assert requested_hosts(page) == {"image.example", "style.example", "frame.example"}, (
        "without the policy, the requests are recorded"
    )


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1400])
def test_pointing_at_a_curve_shows_values_of_all_curves_and_the_page_fits_the_window(page: Path, width: int) -> None:
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8"))
    page.write_text(text.replace("</body>", f"{POINT_AT.replace('WIDTH', str(width))}</body>"), "utf-8")
    dom = chromium(page.parent, f"--window-size={width},900", "--dump-dom", page.as_uri())
    assert len(re.findall("<b>step 51</b>", dom)) == 2
    assert "training <b>0.9804</b>" in dom and "held out <b>0.7843</b>" in dom
    assert int(re.findall(r'data-width="(\d+)"', dom)[0]) <= width


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "light"), [(1, True), (0, False)], ids=["light", "dark"])
def test_the_page_follows_the_color_scheme_of_the_browser(page: Path, scheme: int, light: bool) -> None:
    shot = page.parent / "page.png"
    scheme_option = f"--blink-settings=preferredColorScheme={scheme}"
    chromium(page.parent, scheme_option, "--window-size=800,600", f"--screenshot={shot}", page.as_uri())
    background = Image.open(shot).convert("L").getpixel((3, 3))
    assert background > 200 if light else background < 60


STEP_BACK = """<script>{
const section = document.querySelector("#completions"), [previous] = section.querySelectorAll("button");
previous.click();
section.querySelector("select").value = "length";
section.querySelector("input[type=checkbox]").click();
const shown = [...section.querySelectorAll(".generated")].filter((step) => !step.hidden);
const texts = shown.flatMap((step) => [...step.querySelectorAll("li .answer")].map((one) => one.innerText.trim()));
const numbers = shown.map((step) => step.dataset.step);
document.body.dataset.shown = [location.hash, ...numbers, ...texts.map((one) => one.slice(0, 8))];
}</script>"""


def test_a_step_of_completions_is_chosen_and_sorted_and_runs_no_script_of_a_completion(page: Path) -> None:
    texts = ("much longer", "short", "<script>document.title = 'pwned'</script><img src=x onerror=alert(1)>")
    rows = [{"prompt": "Why?", "completion": text, "advantage": 1.0 - k, "finish": "stop", "reward:a": 1.0}
            for k, text in enumerate(texts)]  # fmt: skip
    tables = [{"step": step, "table": "completions", "rows": rows} for step in (10, 20, 30)]
    (page.parent / "tables.jsonl").write_text("".join(json.dumps(table) + "\n" for table in tables))
    page.write_text(render(page.parent), "utf-8")
    dom = chromium(page.parent, "--dump-dom", page.as_uri())
    assert "pwned</title>" not in dom and "<img" not in dom and dom.count("<script>") == 1
    assert 'class="stepper">' in dom, "the controls are shown if scripts run"
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8"))
    page.write_text(text.replace("</body>", f"{STEP_BACK}</body>"), "utf-8")
    dom = chromium(page.parent, "--dump-dom", page.as_uri())
    assert re.findall(r'data-shown="([^"]*)"', dom) == ["#step-20,20,short,much lon,&lt;script&gt;"]
    dom = chromium(page.parent, "--dump-dom", f"{page.as_uri()}#step-20")
    assert re.findall(r'data-shown="([^"]*)"', dom) == ["#step-10,10,short,much lon,&lt;script&gt;"], "reloaded"
