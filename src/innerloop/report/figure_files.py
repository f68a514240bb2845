"""Figures embedded in pages, and saved as files next to them."""

import io
from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure

from innerloop.io.folders import OutputFolder
from innerloop.report.html_blocks import embedded, nonbreaking
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
    return embedded(svg_text(figure).encode(), "image/svg+xml", what)


def framed(figure: Figure, what: str, caption: str = "") -> str:
    """A figure as a `figure` element, with a caption in plain text if there is one."""
    below = f"<figcaption>{nonbreaking(caption)}</figcaption>" if caption else ""
    return f"<figure>{svg(figure, what)}{below}</figure>"


def svg_text(figure: Figure) -> str:
    """A figure with a transparent background, and light ink if the reader's pages are dark."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue().replace("</style>", f"{DARK}</style>", 1)


def rendered(figures: Mapping[str, Figure]) -> dict[str, bytes]:
    """Figures as PNG and SVG, by file name."""
    files = {}
    for name, figure in figures.items():
        for kind in ("png", "svg"):
            buffer = io.BytesIO()
            with matplotlib.rc_context(STYLE):
                figure.savefig(buffer, format=kind, dpi=160)
            files[f"{name}.{kind}"] = buffer.getvalue()
    return files


def save_figures(folder: OutputFolder, files: Mapping[str, bytes]) -> None:
    """Save rendered figures in `figures/` of a folder. Raises InnerloopError if a file cannot be written."""
    folder.make("figures")
    for name, content in files.items():
        with folder.replacing(f"figures/{name}") as draft:
            draft.write_bytes(content)
