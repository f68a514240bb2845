"""Figures embedded in pages, and saved as files next to them."""

import base64
import html
import io
from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure

from innerloop.io.files import OutputFolder
from innerloop.io.text import LIMIT, printable
from innerloop.report.plots.style import STYLE

LIGHT_ON_DARK = {"#000000": "#e6e6e6", "#555555": "#9a9a9a", "#767676": "#9a9a9a", "#e3e3e3": "#3a3a3a"}
"""What black lines, axes, greys and grids become on a dark page; other colours are legible on both."""

RULES = [
    f'[style*="{part}: {colour}"] {{ {part}: {light} !important }}'
    for colour, light in LIGHT_ON_DARK.items()
    for part in ("fill", "stroke")
]
DARK = " ".join(["@media (prefers-color-scheme: dark) { svg { fill: #e6e6e6 }", *RULES, "}"])
"""Styles inside a figure: text has no fill of its own, so it inherits that of the SVG."""


def svg(figure: Figure, what: str) -> str:
    """A figure as an `img` element, since the identifiers of several inline SVGs would clash."""
    inside = base64.b64encode(svg_text(figure).encode()).decode()
    return f'<img alt="{html.escape(printable(what, LIMIT))}" src="data:image/svg+xml;base64,{inside}">'


def svg_text(figure: Figure) -> str:
    """A figure with a transparent background, and light ink if the reader's pages are dark."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue().replace("</style>", f"{DARK}</style>", 1)


def save_figures(folder: OutputFolder, figures: Mapping[str, Figure]) -> None:
    """Save figures as PNG and SVG in `figures/` of a folder.

    Raises:
        InnerloopError: if a file cannot be written.
    """
    folder.make("figures")
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            with folder.replacing(f"figures/{name}.{kind}") as draft, matplotlib.rc_context(STYLE):
                figure.savefig(draft, format=kind, dpi=160)
