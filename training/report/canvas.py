"""Charts as SVG inside a page: in the page's colours, for wide and for narrow screens, with values to hover over.

Charts are drawn in placeholder colours, which then become CSS variables, so that they follow the page into dark mode.
Equal reports give equal bytes.
"""

import io
import re
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup, escape
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

INK, FAINT, ACCENT = "#010203", "#040506", "#070809"
CSS_COLORS = {INK: "currentColor", FAINT: "var(--faint)", ACCENT: "var(--accent)"}
ORANGE, GREEN = "#d55e00", "#009e73"
"""Colours of the Okabe-Ito palette, which colour-blind readers can distinguish; legible on light and dark pages."""

STYLE: dict[Any, Any] = {
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), "none"),
    # Without parse_math, "$" in the name of a rung or task is no formula.
    **dict.fromkeys(("axes.spines.right", "axes.spines.top", "legend.frameon", "text.parse_math"), False),
    **{"axes.axisbelow": True, "axes.grid": True, "grid.alpha": 0.25, "grid.color": FAINT, "axes.linewidth": 0.6},
    **{"font.size": 9, "axes.titlesize": 9, "legend.handlelength": 1.6, "legend.columnspacing": 1.4},
    # Text stays text, in the font of the page; ids are salted hashes, by default with a new salt each time.
    **{"svg.fonttype": "none", "svg.hashsalt": "report"},
}


@dataclass
class Canvas:
    """Draws one chart at one width.

    Attributes:
        name: prefix of all ids, because all charts share the page's one name space.
        wide: whether the chart is for a screen as wide as a page, or for a telephone.
    """

    name: str
    wide: bool
    _hovers: dict[str, str] = field(default_factory=dict)

    def figure(self, height: float) -> Figure:
        """An empty figure.

        Args:
            height: in inches.
        """
        return Figure((7.4 if self.wide else 3.8, height), layout="constrained")

    def hover(self, artist: Artist, text: str, name: str = "") -> None:
        """Show a text where the pointer rests on an artist.

        Args:
            name: by which scripts find the artist.
        """
        identity = name or f"hover-{len(self._hovers)}"
        artist.set_gid(identity)
        self._hovers[identity] = text

    def legend(self, figure: Figure, wide: int = 3, narrow: int = 3) -> None:
        """Explain the labelled artists below the axes, in so many columns on wide and on narrow screens."""
        figure.legend(loc="outside lower center", ncols=wide if self.wide else narrow)

    def svg(self, figure: Figure) -> Markup:
        """The chart as an element."""
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
        # What stands before the element, an XML declaration and a DOCTYPE, is not allowed inside a page.
        _, start, svg = buffer.getvalue().partition("<svg")
        for identity, text in self._hovers.items():
            svg = svg.replace(f'<g id="{identity}">', f'<g id="{identity}"><title>{escape(text)}</title>')
        svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{self.name}-", start + svg)
        for color, css in CSS_COLORS.items():
            svg = svg.replace(color, css)
        return Markup(svg)  # safe: matplotlib escapes every label


def percent_axis(axes: Axes, which: str) -> None:
    """Whole percentages at the ticks of "x" or "y"."""
    getattr(axes, f"{which}axis").set_major_formatter(PercentFormatter(1, decimals=0))


def in_points(share: float) -> str:
    """A share in percentage points: 0.02 -> "2 points"."""
    number = points(share)
    return f"{number} point" if number == "1" else f"{number} points"


def points(share: float) -> str:
    """A share in percentage points, without the word: 0.005 -> "0.5"."""
    return f"{round(100 * share, 1):g}"
