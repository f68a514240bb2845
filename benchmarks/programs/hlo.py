"""Parse the text of a compiled program (XLA's HLO) into computations and instructions."""

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
    """One instruction: name, operation, shape as text, operands by name, and the rest of the line."""

    name: str
    op: str
    shape: str
    operands: tuple[str, ...]
    rest: str
    root: bool

    @property
    def dimensions(self) -> list[int]:
        """The dimensions of its first array."""
        return dimensions(self.shape)

    @property
    def bytes(self) -> int:
        """The bytes of all its arrays."""
        return bytes_of(self.shape)

    @property
    def first_bytes(self) -> int:
        """The bytes of its first array."""
        found = ARRAY.search(self.shape)
        return bytes_of(found.group()) if found else 0

    @property
    def called(self) -> dict[str, str]:
        """The computations that it runs, by role."""
        return dict(CALLED.findall(self.rest))

    @property
    def branches(self) -> list[str]:
        """The computations among which it chooses."""
        listed = [a or b for a, b in BRANCHES.findall(self.rest)]
        return [name.strip().lstrip("%") for names in listed for name in names.split(",")]

    @property
    def trips(self) -> int:
        """A loop's trip count; 1 if unknown."""
        found = TRIPS.search(self.rest)
        return int(found.group(1)) if found else 1


@dataclass
class Computation:
    """Instructions by name, in order."""

    instructions: dict[str, Instruction] = field(default_factory=dict)

    @property
    def root(self) -> Instruction:
        """The instruction whose value is the computation's result."""
        return next(one for one in reversed(self.instructions.values()) if one.root)

    @property
    def parameters(self) -> list[Instruction]:
        """The parameters in the order of the arguments."""
        found = [one for one in self.instructions.values() if one.op == "parameter"]
        return sorted(found, key=lambda one: int(one.rest.partition(")")[0]))

    def readers(self, name: str) -> list[tuple[Instruction, str]]:
        """The instructions that read a value, also through bitcasts, and its name there."""
        found = [(one, name) for one in self.instructions.values() if name in one.operands]
        through = [self.readers(one.name) for one, _ in found if one.op == "bitcast"]
        return [pair for pair in found if pair[0].op != "bitcast"] + sum(through, [])


@dataclass
class Program:
    """Computations by name, and the entry computation's name."""

    computations: dict[str, Computation]
    entry: str


def dimensions(shape: str) -> list[int]:
    """The dimensions of the first array in a shape's text."""
    found = ARRAY.search(shape)
    return [int(n) for n in found.group(2).split(",") if n] if found else []


def bytes_of(shape: str) -> int:
    """The bytes of all arrays in a shape's text; keys and tokens count as 0."""
    return sum(
        BYTES.get(kind, 0) * math.prod(int(n) for n in axes.split(",") if n)
        for kind, axes in ARRAY.findall(shape)
    )


def parse(text: str) -> Program:
    """Parse the text from `compiled.as_text()`."""
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
    """The operand names between the operation's parentheses, with or without shapes."""
    depth, end = 1, 0
    while depth and end < len(rest):
        depth += {"(": 1, ")": -1}.get(rest[end], 0)
        end += 1
    inside = re.sub(r"/\*.*?\*/|\{[^}]*\}|\[[^\]]*\]", "", rest[: end - 1])
    return tuple(words.split()[-1].lstrip("%") for words in inside.split(",") if words.strip())
