"""The settings and environments of all runs side by side."""

from collections.abc import Container, Sequence
from dataclasses import asdict

from innerloop.config.schema import Config
from innerloop.config.serialization import flattened
from innerloop.config.specs import SETTINGS
from innerloop.io.untrusted import JsonObject
from innerloop.report.comparison import Result
from innerloop.report.html_blocks import escaped, folded, table
from innerloop.report.measurements import Group

CONV4 = ("filters", "downsample", "features")
MLP = ("hidden", "activation", "normalize", "context", "scale")


def config_table(group: Group) -> str:
    """The settings that apply to any of the runs in a group; those that differ come first."""
    configs = [run.trained.config for run in group.members]
    flat = [flattened(asdict(config)) for config in configs]
    apply = [name for name in flat[0] if any(applies(config, name) for config in configs)]
    same = {name for name in apply if len(flat) > 1 and len({str(f[name]) for f in flat}) == 1}
    columns = [{name: f[name] for name in sorted(apply, key=same.__contains__)} for f in flat]
    heads = ["setting", *(run.label for run in group.members)]
    note = '<p class="soft">Settings that differ come first.</p>' if len(flat) > 1 else ""
    return folded_table(f"Settings: {group.title}", heads, columns, same, note)


def applies(config: Config, name: str) -> bool:
    """Whether a setting, named as in `data.shots`, changes anything with this config's tasks, model and algorithm."""
    section, _, field = name.rpartition(".")
    if section == "rl":
        return config.reinforcement
    if section == "data":
        return field in ("dataset", *config.data.spec.settings)
    if section == "model":
        return field not in (MLP if config.model.kind == "conv4" else CONV4)
    if section == "inner":
        return field in config.spec.settings or field not in SETTINGS
    needs = {
        "evaluation.queries": not config.reinforcement,
        "evaluation.rotations": config.data.rotations,
        "evaluation.normalization": config.model.normalizes,
    }
    return needs.get(name, True)


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
    return folded_table("Environment", ["", *labels], [facts for _, facts in kept])


def folded_table(
    title: str, heads: Sequence[str], columns: Sequence[JsonObject], same: Container[str] = (), note: str = ""
) -> str:
    """A folded table with a row for each name in any column; `heads` begins with that of the names.

    Names in `same` are pale; `note` is HTML above the table.
    """
    names = dict.fromkeys(name for facts in columns for name in facts)
    cells = lambda name: [name, *(_as_text(facts.get(name, "")) for facts in columns)]
    rows = [("same" if name in same else "", list(map(escaped, cells(name)))) for name in names]
    return folded(title, note + table(list(map(escaped, heads)), rows, len(heads)))


def _as_text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
