"""Print the share of right answers to held-out questions over a run, and draw it.

    python tools/learning_curve.py [--gain 0.3] [--svg FILE] [--reward exact_match] FOLDER...

Reads eval_rewards/REWARD/mean from metrics.jsonl of each folder. With --gain, exit with 1 if a run gained less.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 640, 280, 48, 40, 16
COLORS = ("#2563eb", "#d97706", "#059669", "#9333ea")


def read(folder: Path, reward: str) -> list[tuple[int, float]]:
    """Return (step, share of right answers) of each evaluation."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    name = f"eval_rewards/{reward}/mean"
    return [(line["step"], line[name]) for line in lines if name in line]


def svg(curves: dict[str, list[tuple[int, float]]]) -> str:
    """Return a picture of the curves, readable on a light and on a dark page."""
    last = max(step for points in curves.values() for step, _ in points)
    right, low = WIDTH - 120, HEIGHT - BOTTOM

    def place(step: float, share: float) -> str:
        return f"{LEFT + (right - LEFT) * step / last:.1f},{low - (low - TOP) * share:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12">',
        "<title>Share of right answers to held-out questions by optimizer step</title>",
        '<g fill="#888" font-family="sans-serif">',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = low - (low - TOP) * share
        parts.append(f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#888" stroke-opacity=".3"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for x, label in ((LEFT, "step 0"), (right, str(last))):
        parts.append(f'<text x="{x}" y="{HEIGHT - 14}" text-anchor="{"end" if x == right else "start"}">{label}</text>')
    parts.append("</g>")
    ends = sorted((points[-1][1], name) for name, points in curves.items())
    labels: dict[str, float] = {}
    for share, name in ends:  # labels at least 14 pixels apart
        y = low - (low - TOP) * share + 4
        labels[name] = min([y, *(other - 14 for other in labels.values())])
    for color, (name, points) in zip(COLORS, curves.items(), strict=False):
        line = " ".join(place(*point) for point in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        at = f'x="{right + 8}" y="{labels[name]:.1f}" font-family="sans-serif"'
        parts.append(f'<text {at} fill="{color}">{name} {points[-1][1]:.0%}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--gain", type=float, default=0.0)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--reward", default="exact_match")
    options = parser.parse_args()
    curves = {folder.name.partition("-")[0]: read(folder, options.reward) for folder in options.folders}
    enough = True
    for name, points in curves.items():
        gain = points[-1][1] - points[0][1]
        enough = enough and gain >= options.gain
        print(f"{name}: {', '.join(f'{share:.1%} at step {step}' for step, share in points)}; gain {gain:+.1%}")
    if options.svg:
        options.svg.write_text(svg(curves), encoding="utf-8")
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
