"""The settings and environments of all runs side by side."""

from collections.abc import Sequence
from dataclasses import asdict

from innerloop.config.applicable import applies
from innerloop.io.untrusted import JsonObject
from innerloop.report.comparison import Result
from innerloop.report.html_blocks import escaped, table
from innerloop.report.measurements import Group


def config_table(group: Group) -> str:
    """The settings that apply to any of the runs in a group; those that differ come first."""
    configs = [run.trained.config for run in group.members]
    flat = [flattened(asdict(config)) for config in configs]
    apply = [name for name in flat[0] if any(applies(config, name) for config in configs)]
    names = sorted(apply, key=lambda name: len({str(f[name]) for f in flat}) == 1)
    rows = []
    for name in names:
        values = [str(f[name]) for f in flat]
        same = len(flat) > 1 and len(set(values)) == 1
        rows.append(("same" if same else "", [escaped(name), *map(escaped, values)]))
    heads = ["setting", *(escaped(run.label) for run in group.members)]
    note = '<p class="soft">Settings that differ come first.</p>' if len(flat) > 1 else ""
    body = note + table(heads, rows, len(heads))
    return f"<details><summary>Settings: {escaped(group.title)}</summary>{body}</details>"


def flattened(values: JsonObject, prefix: str = "") -> JsonObject:
    """Nested settings as one dictionary with dotted names."""
    flat: JsonObject = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def environment_table(runs: Sequence[Result]) -> str:
    """The environments of the runs; runs with the same environment share a column."""
    alike: dict[str, tuple[list[str], JsonObject]] = {}
    for run in runs:
        facts = flattened(run.environment)
        alike.setdefault(str(facts), ([], facts))[0].append(run.label)
    kept = [(labels, facts) for labels, facts in alike.values() if facts]
    if not kept:
        return ""
    labels = [", ".join(labels) if len(kept) > 1 else "all runs" for labels, _ in kept]
    return folded("Environment", ["", *labels], [facts for _, facts in kept])


def folded(title: str, heads: Sequence[str], columns: Sequence[JsonObject]) -> str:
    """A folded table with a row for each name in any column; `heads` begins with that of the names."""
    names = dict.fromkeys(name for facts in columns for name in facts)
    rows = [("", [escaped(n), *(escaped(_as_text(facts.get(n, ""))) for facts in columns)]) for n in names]
    body = table(list(map(escaped, heads)), rows, len(heads))
    return f"<details><summary>{title}</summary>{body}</details>"


def _as_text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
