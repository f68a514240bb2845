"""The settings and environments of all runs side by side."""

from collections.abc import Sequence
from dataclasses import asdict

from innerloop.analysis.records import Record
from innerloop.report.comparison import Result
from innerloop.report.html_blocks import escaped, table
from innerloop.report.measurements import Group


def config_tables(groups: Sequence[Group]) -> str:
    """One table per problem; settings that differ between its runs come first."""
    return "".join(_config_table(group) for group in groups)


def _config_table(group: Group) -> str:
    """All settings of the runs in a group."""
    flat = [flattened(asdict(run.trained.config)) for run in group.members]
    names = sorted(flat[0], key=lambda name: len({str(f[name]) for f in flat}) == 1)
    rows = []
    for name in names:
        values = [str(f[name]) for f in flat]
        same = len(flat) > 1 and len(set(values)) == 1
        rows.append(("same" if same else "", [escaped(name), *map(escaped, values)]))
    heads = ["setting", *(escaped(run.label) for run in group.members)]
    note = '<p class="soft">Settings that differ come first.</p>' if len(flat) > 1 else ""
    body = note + table(heads, rows, len(heads))
    return f"<details><summary>Settings: {escaped(group.title)}</summary>{body}</details>"


def flattened(values: Record, prefix: str = "") -> Record:
    """Nested settings as one dictionary with dotted names."""
    flat: Record = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def environment_table(runs: Sequence[Result]) -> str:
    """The environments of the runs; runs with the same environment share a column."""
    alike: dict[str, tuple[list[str], Record]] = {}
    for run in runs:
        facts = flattened(run.environment)
        alike.setdefault(str(facts), ([], facts))[0].append(run.label)
    kept = [(labels, facts) for labels, facts in alike.values() if facts]
    if not kept:
        return ""
    names = dict.fromkeys(name for _, facts in kept for name in facts)
    heads = ["", *(escaped(", ".join(labels)) if len(kept) > 1 else "all runs" for labels, _ in kept)]
    rows = [("", [escaped(n), *(escaped(_as_text(f.get(n, ""))) for _, f in kept)]) for n in names]
    return f"<details><summary>Environment</summary>{table(heads, rows, len(heads))}</details>"


def _as_text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
