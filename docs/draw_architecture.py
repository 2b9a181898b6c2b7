"""Draws docs/architecture.svg from the import contracts in pyproject.toml: `make picture`.

Rooms stand on the floors of the contract "Imports run one way"; a room imports only from floors below its own. What a
room is for is the first line of its docstring. Badges number the steps of a Generate call.
"""

import ast
import re
import sys
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]

STEPS = (
    ("rpc", "checks credentials, converts the request"),
    ("routing", "picks the served model, asks for its score"),
    ("scoring", "answers from its caches, or runs the classifier"),
    ("routing", "chooses a budget within the target"),
    ("admission", "lets the generation in when its tokens fit"),
    ("backends", "streams from an engine, within the budget"),
    ("outcomes", "records the decision and how it ended"),
    ("rpc", "converts every event and streams it back"),
)
"""The rooms that a Generate call goes through, in order."""

WIDTH, FLOOR, GAP, MARGIN = 1180, 74, 12, 24
ROOM, LEGEND = 168, 24
"""Widest room, and height of a line of the legend; all in pixels."""

STYLE = """
  text { font: 13px ui-sans-serif, system-ui, sans-serif; fill: #1f2328 }
  .name { font-weight: 600; font-size: 14px } .purpose { font-size: 10.5px; fill: #57606a }
  .floor { fill: #f6f8fa } .room { fill: #ffffff; stroke: #8c959f }
  .path { fill: #ddf4ff; stroke: #0969da } .badge { fill: #0969da } .number { fill: #ffffff; font-size: 11px }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117 } text { fill: #e6edf3 } .purpose { fill: #9198a1 } .floor { fill: #151b23 }
    .room { fill: #0d1117; stroke: #656c76 } .path { fill: #0c2d6b; stroke: #4493f8 } .badge { fill: #4493f8 }
  }
"""


def floors() -> list[list[str]]:
    """The rooms of `router` by floor, the top one first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["router"])
    return [re.split(r"\s*[|:]\s*", layer) for layer in layers if layer != "__main__"]


def purpose(room: str) -> str:
    """The first line of a room's docstring."""
    package = ROOT / "router" / room
    file = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
    return (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n")[0]


def wrapped(text: str, width: int) -> list[str]:
    """The first words of a text in at most two lines of `width` characters, with … where words are left out."""
    lines, words = [""], text.split()
    for position, word in enumerate(words):
        if len(lines[-1]) + len(word) < width:
            lines[-1] = f"{lines[-1]} {word}".strip()
        elif len(lines) < 2:
            lines.append(word)
        else:
            return [lines[0], lines[1] + " …"] if position < len(words) else lines
    return lines


def room(name: str, x: float, y: float, width: float) -> list[str]:
    """The box of a room with its name, its purpose, and the numbers of the steps that pass through it."""
    numbers = [number for number, (where, _) in enumerate(STEPS, 1) if where == name]
    kind = "room path" if numbers else "room"
    drawn = [
        f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{FLOOR - 16}" rx="6"/>',
        f'<text class="name" x="{x + 10}" y="{y + 20}">{name}</text>',
    ]
    for line, text in enumerate(wrapped(purpose(name), int(width / 5.6))):
        drawn.append(f'<text class="purpose" x="{x + 10}" y="{y + 35 + 13 * line}">{escape(text)}</text>')
    for place, number in enumerate(numbers):
        drawn += badge(number, x + width - 14 - 20 * (len(numbers) - 1 - place), y + 14)
    return drawn


def badge(number: int, x: float, y: float) -> list[str]:
    """A numbered circle."""
    return [
        f'<circle class="badge" cx="{x}" cy="{y}" r="9"/>',
        f'<text class="number" x="{x}" y="{y + 4}" text-anchor="middle">{number}</text>',
    ]


def picture() -> str:
    """The whole drawing as SVG."""
    drawn, y = [], MARGIN
    for rooms in floors():
        width = (WIDTH - 2 * MARGIN - GAP * (len(rooms) + 1)) / len(rooms)
        width = min(width, ROOM * (3 if len(rooms) < 3 else 2))
        drawn.append(f'<rect class="floor" x="{MARGIN}" y="{y}" width="{WIDTH - 2 * MARGIN}" height="{FLOOR}" rx="8"/>')
        left = (WIDTH - len(rooms) * (width + GAP) + GAP) / 2
        for place, name in enumerate(rooms):
            drawn += room(name, round(left + place * (width + GAP)), y + 8, round(width))
        y += FLOOR + GAP
    for number, (where, what) in enumerate(STEPS, 1):
        y += LEGEND
        drawn += badge(number, MARGIN + 12, y - 4)
        drawn.append(f'<text x="{MARGIN + 30}" y="{y}"><tspan class="name">{where}</tspan> {escape(what)}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + MARGIN}" role="img"'
    title = "The rooms of the router by floor, and the path of a Generate call through them"
    return "\n".join([f'{head} aria-label="{title}">', f"<style>{STYLE}</style>", *drawn, "</svg>\n"])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(picture())
