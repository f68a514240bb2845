"""Count kernels, loops, bytes and operations of a compiled program, with every loop counted as often as it runs.

XLA's own analysis counts each loop once, and on a GPU omits products that a library computes; a training block is a
loop of meta-steps, and most of its work is such products. What is counted:

    kernels     instructions that launch code: fusions, products, reductions, copies, ...
    loops       passes of the loops that the host controls
    bytes       bytes that the kernels read and write; only the slice of an array that a kernel slices
    operations  only of matrix products and convolutions: two per multiply-add
"""

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property

from benchmarks.programs.hlo import Computation, Instruction, Program, parse

FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "opt-barrier",
    "partition-id",
    "replica-id",
}
"""Instructions that run no code."""
SLICES = {"slice", "dynamic-slice", "gather"}


@dataclass(frozen=True)
class Cost:
    """The cost of a program."""

    kernels: float = 0
    loops: float = 0
    bytes: float = 0
    operations: float = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(self.values, other.values, strict=True)))

    def __mul__(self, times: float) -> "Cost":
        return Cost(*(times * a for a in self.values))

    @property
    def values(self) -> tuple[float, float, float, float]:
        """All fields as a tuple."""
        return self.kernels, self.loops, self.bytes, self.operations


def cost_of(text: str) -> Cost:
    """The cost of the program in the text from `compiled.as_text()`."""
    return Counter(parse(text)).total


class Counter:
    """Costs of a program's computations, each computed once."""

    def __init__(self, program: Program):
        self.program, self.known = program, {}

    @cached_property
    def total(self) -> Cost:
        """The cost of the program."""
        return self.of(self.program.entry)

    def of(self, name: str) -> Cost:
        """The cost of a computation."""
        if name not in self.known:
            computation = self.program.computations[name]
            costs = [self.of_instruction(one, computation) for one in computation.instructions.values()]
            self.known[name] = sum(costs, Cost())
        return self.known[name]

    def of_instruction(self, one: Instruction, within: Computation) -> Cost:
        """The cost of an instruction and all computations that it runs."""
        called = one.called
        if one.op in FREE or one.op.endswith("-done"):
            return Cost()
        if one.op == "while":
            each = self.of(called["body"]) + self.of(called["condition"]) + Cost(loops=1)
            return each * one.trips
        if one.op == "call":
            return self.of(called["to_apply"])
        if one.op == "conditional":
            return max(map(self.of, one.branches), key=lambda cost: cost.kernels)
        return Cost(1, 0, self.traffic(one, within), self.operations(one, within))

    def traffic(self, one: Instruction, within: Computation) -> int:
        """The bytes that a kernel reads and writes."""
        sizes = [
            within.instructions[name].bytes if name in within.instructions else 0 for name in one.operands
        ]
        if one.op in SLICES:
            return 2 * one.bytes + sum(sizes[1:])
        if one.op == "dynamic-update-slice":
            return 2 * sizes[1] + sum(sizes[2:])
        if _is_library_product(one):
            return sum(sizes) + one.first_bytes  # the second result is work space
        if one.op != "fusion":
            return one.bytes + sum(sizes)
        inside = self.program.computations[one.called["calls"]]
        return sum(map(_read, [inside] * len(sizes), range(len(sizes)))) + _written(inside)

    def operations(self, one: Instruction, within: Computation) -> int:
        """The operations of the products in a kernel."""
        if one.op == "fusion":
            inside = self.program.computations[one.called["calls"]]
            return sum(self.operations(each, inside) for each in inside.instructions.values())
        shapes = [
            within.instructions[name].dimensions for name in one.operands if name in within.instructions
        ]
        if one.op == "dot":
            return _product(one, shapes[0], _numbers(one.rest, "lhs_contracting_dims"))
        if one.op == "convolution":
            return _convolution(one, shapes[1])
        return _product(one, shapes[0], _contracted(one.rest)) if _is_library_product(one) else 0


def _is_library_product(one: Instruction) -> bool:
    """Whether an instruction calls a library's matrix product, such as cuBLAS's."""
    return one.op == "custom-call" and "lhs_contracting_dimensions" in one.rest


def _read(inside: Computation, number: int) -> int:
    """The bytes of an argument that a fusion reads: only the slices if every reader slices it."""
    argument = inside.parameters[number]
    readers = inside.readers(argument.name)
    if readers and all(r.op in SLICES and same == r.operands[0] for r, same in readers):
        return min(argument.bytes, sum(r.bytes for r, _ in readers))
    if readers and all(r.op == "dynamic-update-slice" and same == r.operands[0] for r, same in readers):
        return 0  # updated in place
    return argument.bytes


def _written(inside: Computation) -> int:
    """The bytes that a fusion writes: only the update for an array updated in place."""
    root = inside.root
    results = [inside.instructions[name] for name in root.operands] if root.op == "tuple" else [root]
    return sum(_update(inside, result) for result in results)


def _update(inside: Computation, result: Instruction) -> int:
    """The bytes written for one result."""
    while result.op in ("bitcast", "copy") and result.operands[0] in inside.instructions:
        result = inside.instructions[result.operands[0]]
    return (
        inside.instructions[result.operands[1]].bytes if result.op == "dynamic-update-slice" else result.bytes
    )


def _product(one: Instruction, left: list[int], contracted: list[int]) -> int:
    """The operations of a matrix product."""
    return 2 * math.prod(one.dimensions) * math.prod(left[axis] for axis in contracted)


def _convolution(one: Instruction, kernel: list[int]) -> int:
    """The operations of a convolution: each output uses one filter of the kernel."""
    labels = re.search(r"dim_labels=\w+?_(\w+)->", one.rest)
    filters = kernel[labels.group(1).index("o")] if labels else kernel[-1]
    return 2 * math.prod(one.dimensions) * math.prod(kernel) // max(filters, 1)


def _numbers(rest: str, name: str) -> list[int]:
    """The numbers in `name={1,2}`."""
    found = re.search(rf"\b{name}=\{{([\d,]*)\}}", rest)
    return [int(n) for n in found.group(1).split(",") if n] if found else []


def _contracted(rest: str) -> list[int]:
    """The contracted axes of the first factor, from the config of a library's product."""
    found = re.search(r'"lhs_contracting_dimensions":(\[[^\]]*\])', rest)
    return [int(n) for n in json.loads(found.group(1))] if found else []
