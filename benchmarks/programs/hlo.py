"""The text of a compiled program (XLA's HLO) as computations of instructions."""

import math
import re
from dataclasses import dataclass, field

BYTES = {
    "pred": 1,
    "bf16": 2,
    **{f"{kind}{bits}": bits // 8 for kind in "suf" for bits in (8, 16, 32, 64)},
    "c64": 8,
    "c128": 16,
}
HEAD = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\) -> .*\{$")
LINE = re.compile(r"^\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>.+?) (?P<op>[a-z][a-z0-9\-]*)\(")
ARRAY = re.compile(r"\b([a-z]+[0-9]*)(?:e\dm\d\w*)?\[([\d,]*)\]")
CALLED = re.compile(r"\b(calls|to_apply|body|condition)=%?([\w.\-]+)")
BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}|\b(?:true|false)_computation=%?([\w.\-]+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclass(frozen=True)
class Instruction:
    """One instruction: its name, operation, shape in text, operands by name, and all that follows in text."""

    name: str
    op: str
    shape: str
    operands: tuple[str, ...]
    rest: str
    root: bool

    @property
    def dimensions(self) -> list[int]:
        """Of its first array."""
        return dimensions(self.shape)

    @property
    def bytes(self) -> int:
        """Of all its arrays."""
        return bytes_of(self.shape)

    @property
    def first_bytes(self) -> int:
        """Of its first array."""
        found = ARRAY.search(self.shape)
        return bytes_of(found.group()) if found else 0

    @property
    def called(self) -> dict[str, str]:
        """The computations that it runs, by their role."""
        return dict(CALLED.findall(self.rest))

    @property
    def branches(self) -> list[str]:
        """The computations that it chooses among."""
        listed = [a or b for a, b in BRANCHES.findall(self.rest)]
        return [name.strip().lstrip("%") for names in listed for name in names.split(",")]

    @property
    def trips(self) -> int:
        """How often a loop runs; 1 if that is not known."""
        found = TRIPS.search(self.rest)
        return int(found.group(1)) if found else 1


@dataclass
class Computation:
    """Instructions by name, in order."""

    instructions: dict[str, Instruction] = field(default_factory=dict)

    @property
    def root(self) -> Instruction:
        """The instruction whose value is the computation's."""
        return next(one for one in reversed(self.instructions.values()) if one.root)

    @property
    def parameters(self) -> list[Instruction]:
        """In the order of the arguments."""
        found = [one for one in self.instructions.values() if one.op == "parameter"]
        return sorted(found, key=lambda one: int(one.rest.partition(")")[0]))

    def readers(self, name: str) -> list[tuple[Instruction, str]]:
        """The instructions that read a value, in whatever shape, and its name there."""
        found = [(one, name) for one in self.instructions.values() if name in one.operands]
        through = [self.readers(one.name) for one, _ in found if one.op == "bitcast"]
        return [pair for pair in found if pair[0].op != "bitcast"] + sum(through, [])


@dataclass
class Program:
    """Computations by name, and which one is run."""

    computations: dict[str, Computation]
    entry: str


def dimensions(shape: str) -> list[int]:
    """The axes of the first array in a shape's text."""
    found = ARRAY.search(shape)
    return [int(n) for n in found.group(2).split(",") if n] if found else []


def bytes_of(shape: str) -> int:
    """Of all arrays in a shape's text; keys and tokens have none."""
    return sum(
        BYTES.get(kind, 0) * math.prod(int(n) for n in axes.split(",") if n)
        for kind, axes in ARRAY.findall(shape)
    )


def parse(text: str) -> Program:
    """Read what `compiled.as_text()` gave."""
    computations: dict[str, Computation] = {}
    entry, current = "", Computation()
    for line in text.splitlines():
        if head := HEAD.match(line):
            current = computations.setdefault(head["name"], Computation())
            entry = head["name"] if head["entry"] else entry
        elif found := LINE.match(line):
            rest = line[found.end() :]
            made = Instruction(
                found["name"], found["op"], found["shape"], _operands(rest), rest, bool(found["root"])
            )
            current.instructions[made.name] = made
    return Program(computations, entry)


def _operands(rest: str) -> tuple[str, ...]:
    """The names between the operation's parentheses, with or without their shapes."""
    depth, end = 1, 0
    while depth and end < len(rest):
        depth += {"(": 1, ")": -1}.get(rest[end], 0)
        end += 1
    inside = re.sub(r"/\*.*?\*/|\{[^}]*\}|\[[^\]]*\]", "", rest[: end - 1])
    return tuple(words.split()[-1].lstrip("%") for words in inside.split(",") if words.strip())
