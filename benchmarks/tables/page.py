"""Generate the tables of docs/guides/when-is-it-worth-it.md from benchmarks/results/tables.json."""

from pathlib import Path
from typing import Any

from benchmarks.accuracy.tables import between_markers, table

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "when-is-it-worth-it.md"
METHODS = {
    "pooled": "pooled network",
    "tuned": "pooled, fine-tuned",
    "alone": "each group alone",
    "mixed": "mixed model",
    "process": "Gaussian process",
    "maml": "MAML",
    "anil": "ANIL",
}
"""Names in the result file -> names in the tables, in the order of the columns."""
Families = dict[str, dict[str, Any]]


def number(mean: float, ci95: float) -> str:
    """A mean with its interval."""
    return f"{mean:.3f} ± {ci95:.3f}"


def described(families: Families) -> str:
    """A description of the families."""
    rows = [
        [
            f["title"],
            f"`{f['source']}`",
            str(f["groups"]),
            "{} to {}".format(*f["rows_of_a_group"]),
            str(f["features"]),
        ]
        for f in families.values()
    ]
    return table(["family", "data set", "groups", "rows per group", "inputs"], rows)


def errors(families: Families, shots: str) -> str:
    """Errors of all methods after `shots` examples; the lowest mean in each family is bold."""
    rows = []
    for family in families.values():
        points = {name: family["methods"][name]["shots"][shots] for name in METHODS}
        best = min(points, key=lambda name: points[name]["error"])
        cells = {name: number(point["error"], point["ci95"]) for name, point in points.items()}
        rows.append([short(family), *(f"**{cell}**" if n == best else cell for n, cell in cells.items())])
    return table(["family", *METHODS.values()], rows)


def short(family: dict[str, Any]) -> str:
    """A family's title without the predicted quantity."""
    return family["title"].split(":")[0] + f" (`{family['source'].split()[-1]}`)"


def differences(families: Families, method: str) -> str:
    """A method's error minus the mixed model's, paired by group; bold if the interval excludes 0."""
    rows = []
    for family in families.values():
        points = family["methods"][method]["shots"]
        cells = [(points[k]["minus_mixed"], points[k]["minus_mixed_ci95"]) for k in points]
        shown = [f"{d:+.3f} ± {c:.3f}" for d, c in cells]
        rows.append(
            [
                short(family),
                *(f"**{s}**" if abs(d) > c else s for s, (d, c) in zip(shown, cells, strict=True)),
            ]
        )
    return table(["family", *(f"{k} example{'s' if k != '1' else ''}" for k in ("1", "3", "5"))], rows)


def counts(families: Families) -> str:
    """The number of families in which each method has the lowest error, by number of examples."""
    rows = []
    for name, title in METHODS.items():
        best = [sum(name == _best(family, k) for family in families.values()) for k in ("1", "3", "5")]
        rows.append([title, *map(str, best)])
    return table([f"lowest of {len(families)} families", "1 example", "3 examples", "5 examples"], rows)


def _best(family: dict[str, Any], shots: str) -> str:
    """The method with the lowest mean error."""
    return min(METHODS, key=lambda name: family["methods"][name]["shots"][shots]["error"])


def write_page(record: dict[str, Any]) -> None:
    """Write all tables between their markers on the page."""
    families = record["families"]
    between_markers(PAGE, "tables-families", described(families))
    for shots in ("1", "3", "5"):
        between_markers(PAGE, f"tables-errors-{shots}", errors(families, shots))
    between_markers(PAGE, "tables-counts", counts(families))
    for method in ("maml", "anil", "process"):
        between_markers(PAGE, f"tables-{method}", differences(families, method))
    made = "Measured {date} on {processor}, Python {python}, commit {commit}.\n".format_map(record)
    between_markers(PAGE, "tables-made", made)
