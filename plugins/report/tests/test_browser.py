"""The page as a browser shows it: whole, with and without its script, and without a request to anywhere."""

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
document.documentElement.style.width = "WIDTHpx";  // a window of the browser is never as narrow as a telephone
const edges = [...document.querySelectorAll("body *")].map((one) => one.getBoundingClientRect().right);
document.body.dataset.width = Math.ceil(Math.max(...edges));
}</script>"""

Image = pytest.importorskip("PIL.Image")  # it comes with tensorboard
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} is installed")


def chromium(folder: Path, *arguments: str) -> str:
    assert CHROMIUM
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={folder / 'profile'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page with samples, several curves, an axis that can be logarithmic, and markup in the data."""
    lines = [{"step": s, "loss": 50.0 / s, "rewards/chosen": s / 9, "eval_loss": 40.0 / s} for s in range(1, 102)]
    said = (
        "<script>document.title = 'pwned'</script><img src=http://image.example onerror=\"document.title = 'pwned'\">"
    )
    sample = {"when": "before", "step": 0, "prompt": said, "completion": "word " * 300 + "w" * 300}
    (tmp_path / "run.json").write_text(json.dumps({"status": "done", "config": {"k": "v" * 300}, "notes": {"n": said}}))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "samples.jsonl").write_text(json.dumps(sample) + "\n")
    (tmp_path / "report.html").write_text(render(tmp_path), "utf-8")
    return tmp_path / "report.html"


def test_the_browser_has_the_curves_and_runs_no_markup_of_the_data(page: Path) -> None:
    dom = chromium(page.parent, "--dump-dom", page.as_uri())
    assert (
        len(re.findall(r'<figure class="chart', dom)) == 2
        and len(re.findall(r'<path class="line train" d="M', dom)) >= 2
    )
    assert "pwned</title>" not in dom and "<img" not in dom and dom.count("<script>") == 1
    assert re.search(r"<title>[^<]*: done</title>", dom)


class Listener(BaseHTTPRequestHandler):
    """A proxy that all requests of the browser go through: it writes down what is asked for, and answers nothing."""

    asked: ClassVar[list[str]] = []

    def answer(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    do_GET = do_CONNECT = do_POST = answer

    def log_message(self, format: str, *args: Any) -> None: ...


def asked_for(page: Path) -> set[str]:
    """The hosts named ...example that a browser asks for while it shows a page."""
    Listener.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        chromium(page.parent, f"--proxy-server=127.0.0.1:{server.server_port}", "--dump-dom", page.as_uri())
        server.shutdown()
    return {host for path in Listener.asked for host in re.findall(r"[\w.]+\.example", path)}


def test_the_page_asks_nobody_for_anything(page: Path) -> None:
    text = page.read_text("utf-8")
    assert asked_for(page) == set()
    tags = '<img src="{}image{}"><link rel="stylesheet" href="{}style{}"><iframe src="{}frame{}"></iframe></body>'
    wild = tags.format(*["http://", ".example/x"] * 3)
    page.write_text(text.replace("</body>", wild), "utf-8")
    assert asked_for(page) == set(), "its policy keeps requests in"
    page.write_text(page.read_text("utf-8").replace("Content-Security-Policy", "x-none"), "utf-8")
    assert asked_for(page) == {"image.example", "style.example", "frame.example"}, "a request would have been seen"


@pytest.mark.parametrize("width", [400, 1400])
def test_pointing_at_a_curve_reads_all_of_them_out_and_nothing_is_wider_than_the_window(page: Path, width: int) -> None:
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text("utf-8"))
    page.write_text(text.replace("</body>", f"{POINT_AT.replace('WIDTH', str(width))}</body>"), "utf-8")
    dom = chromium(page.parent, f"--window-size={width},900", "--dump-dom", page.as_uri())
    assert len(re.findall("<b>step 51</b>", dom)) == 2
    assert "training <b>0.9804</b>" in dom and "held out <b>0.7843</b>" in dom
    assert int(re.findall(r'data-width="(\d+)"', dom)[0]) <= width


@pytest.mark.parametrize(("scheme", "light"), [(1, True), (0, False)], ids=["light", "dark"])
def test_the_page_is_light_or_dark_as_the_reader_has_it(page: Path, scheme: int, light: bool) -> None:
    shot = page.parent / "page.png"
    scheme_option = f"--blink-settings=preferredColorScheme={scheme}"
    chromium(page.parent, scheme_option, "--window-size=800,600", f"--screenshot={shot}", page.as_uri())
    paper = Image.open(shot).convert("L").getpixel((3, 3))
    assert paper > 200 if light else paper < 60
