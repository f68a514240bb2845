"""Generate the tables of docs/guides/scale.md from benchmarks/results/scaling.json and the cost model."""

from pathlib import Path
from typing import Any

from benchmarks.accuracy.tables import table
from benchmarks.scaling.cost_model import DEVICES, LINKS, efficiency, mean_seconds, sent_by_each, step_seconds
from innerloop.errors import InnerloopError
from innerloop.io.files import write_text

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "scale.md"
BEGIN, END = "<!-- {}:begin -->", "<!-- {}:end -->"
LARGE = 1024
"""Tasks per meta-batch in the cost model's tables."""


def seconds(value: float) -> str:
    """A time with a suitable unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return "0"


def count_of(value: float) -> str:
    """A count with spaces between thousands."""
    return f"{value:,.0f}".replace(",", " ")


def made(part: dict[str, Any]) -> str:
    """Where and when a part was measured."""
    return f"\nMeasured {part['date']} on {part['processor']}, Python {part['python']}, commit {part['commit']}.\n"


def speed(part: dict[str, Any]) -> str:
    """Time and bytes per meta-step."""
    header = ["workload", "tasks", "processes", "time", "total CPU time", "bytes of the mean"]
    header += ["bytes sent, computed", "bytes on the loopback, measured"]
    rows = []
    for name, measured in part["measured"]["rows"].items():
        for row in measured:
            n = row["processes"]
            counted = n * sent_by_each(row["mean_bytes"], n)
            times = [seconds(row["seconds"]), seconds(row["cpu_seconds"])]
            volume = [
                count_of(row["mean_bytes"]),
                count_of(counted),
                count_of(row["wire_bytes"]) if n > 1 else "0",
            ]
            rows.append([name, str(row["tasks"]), str(n), *times, *volume])
    loads = [row["load"] for measured in part["measured"]["rows"].values() for row in measured]
    note = f"{part['measured']['cores']} cores; load average {min(loads)} to {max(loads)}, so compare the CPU times."
    if not part["measured"]["own_network"]:
        note += " The loopback carried other traffic too."
    return table(header, rows) + f"\n{note}\n" + made(part)


def equality(part: dict[str, Any]) -> str:
    """How far the runs' weights differ."""
    header = [
        "processes",
        "devices each",
        "compared with one process on as many devices",
        "compared with one device",
    ]
    word = lambda value: "same bits" if value == 0 else f"{value:.1e}"
    rows = [
        [str(r["processes"]), str(r["devices_each"]), word(r["from_one_process"]), word(r["from_one_device"])]
        for r in part["measured"]
    ]
    return table(header, rows) + made(part)


def restarts(part: dict[str, Any]) -> str:
    """The restart matrix."""
    header = [
        "stopped on",
        "at meta-step",
        "resumed on",
        "final weights compared with an uninterrupted run on 4",
    ]
    word = lambda value: "same bits" if value == 0 else f"{value:.1e}"
    rows = [["4", str(r["stopped_at"]), str(r["processes"]), word(r["apart"])] for r in part["measured"]]
    return table(header, rows) + made(part)


def losses(part: dict[str, Any]) -> str:
    """How long the other processes continue."""
    header = ["of 3 processes", "the others stopped after", "exit codes", "reported why"]
    rows = [
        [r["what"], f"{r['seconds']:.1f} s", ", ".join(map(str, r["codes"])), "yes" if r["told"] else "no"]
        for r in part["measured"]
    ]
    return table(header, rows) + f"\nPatience: {part['measured'][0]['patience']} s.\n" + made(part)


def model(part: dict[str, Any]) -> str:
    """The cost model with the measured task time and gradient, up to 1 024 devices."""
    one = next(row for row in part["measured"]["rows"]["omniglot"] if row["processes"] == 1)
    task, gradient = one["cpu_seconds"] / one["tasks"], one["mean_bytes"]
    parts = [
        f"Omniglot 5-way 1-shot MAML: {count_of(gradient)} bytes, {seconds(task)} of CPU time a task as measured "
        f"above; a meta-batch of {count_of(LARGE)} tasks.\n",
        paper(task, gradient),
        f"\nThe same if a device needed a hundredth of that time per task, {seconds(task / 100)}:\n",
        paper(task / 100, gradient),
    ]
    return "\n".join(parts)


def paper(task: float, gradient: float) -> str:
    """One row per number of devices, one column per link."""
    header = ["devices", "tasks each", "sent by each"]
    header += [f"{link.name}: mean, meta-step, efficiency" for link in LINKS]
    rows = []
    for n in DEVICES:
        cells = [
            f"{seconds(mean_seconds(gradient, n, link))}, "
            f"{seconds(step_seconds(LARGE, task, gradient, n, link))}, "
            f"{100 * efficiency(LARGE, task, gradient, n, link):.0f} %"
            for link in LINKS
        ]
        rows.append([count_of(n), count_of(-(-LARGE // n)), count_of(sent_by_each(gradient, n)), *cells])
    return table(header, rows)


SECTIONS = {"speed": speed, "equality": equality, "restarts": restarts, "losses": losses}


def filled(page: str, name: str, text: str) -> str:
    """The page with `text` between the markers of `name`. Raises InnerloopError unless each occurs once, in order."""
    begin, end = BEGIN.format(name), END.format(name)
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(end) < page.index(begin):
        raise InnerloopError("docs/guides/scale.md", f"needs {begin} and {end} once each, in this order")
    head, rest = page.split(begin)
    return f"{head}{begin}\n\n{text.strip()}\n\n{end}{rest.split(end)[1]}"


def write(results: dict[str, Any], page: Path = PAGE) -> None:
    """Write all tables that have been measured."""
    text = page.read_text()
    for name, section in SECTIONS.items():
        if name in results:
            text = filled(text, name, section(results[name]))
    if "speed" in results:
        text = filled(text, "model", model(results["speed"]))
    write_text(page, text)
