"""What a compiler for TPUs has made of a program, read from its text (`jax.stages.Compiled.as_text`)."""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
PRODUCTS = ("convolution", "dot")  # on TPUs every matrix product is a convolution
HOST = ("infeed", "outfeed", "send", "recv")
BOOKKEEPING = ("bitcast", "constant", "get-tuple-element", "parameter", "tuple")
# An operation that does nothing else computes nothing.
MOVES = (
    *BOOKKEEPING,
    *("broadcast", "concatenate", "convert", "copy", "dynamic-slice", "dynamic-update-slice", "fusion", "iota", "pad"),
    *("reshape", "reverse", "slice", "transpose"),
)
BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "bf16": 16, "f16": 16}
BITS |= {"s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64}

INSTRUCTION = re.compile(r"\s+(?P<root>ROOT )?%(?P<name>\S+) = (?P<rest>.*)")
COMPUTATION = re.compile(r"(?P<entry>ENTRY )?%(?P<name>\S+) \(.*\{$")
ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
CALLED = re.compile(
    r"\b(?:calls|body|to_apply|branch_computations|(?:true|false)_computation)=(\{[^}]*\}|%\S+?(?=[,\s]|$))"
)


class Instruction(NamedTuple):
    """A line of a computation.

    Attributes:
      name: of it.
      kind: opcode.
      type: of its result, with dtype, shape and layout; a tuple's in parentheses.
      operands: names of instructions.
      calls: names of computations that it runs, or is made of.
      condition: of a loop, the name of the computation that ends it; else empty.
      cycles: the compiler's estimate for one run; 0 where it makes none.
      channel: of a collective, the same for all parts that it is computed in; empty for none.
      frame: number in `Module.lines`; 0 for none.
      operation: what it comes from in the traced program, as JAX names it.
      value: what the parentheses after the opcode hold.
    """

    name: str
    kind: str
    type: str
    operands: tuple[str, ...]
    calls: tuple[str, ...]
    condition: str
    cycles: int
    channel: str
    frame: int
    operation: str
    value: str


class Run(NamedTuple):
    """An instruction of the schedule, and how often it runs when the program does."""

    instruction: Instruction
    times: int

    @property
    def cycles(self) -> int:
        """Of all its runs."""
        return self.times * self.instruction.cycles


class Product(NamedTuple):
    """A matrix product or convolution: the dtypes of its two operands, what it comes from, and `file:line` of that."""

    dtypes: tuple[str, ...]
    operation: str
    line: str


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program.

    Attributes:
      computations: name -> instructions, in the order of the schedule.
      entry: name of the computation that the program is.
      lines: frame -> `file:line` of the innermost call in `umemma_jax`.
      aliased: results that take the memory of an argument.
    """

    computations: Mapping[str, Sequence[Instruction]]
    entry: str
    lines: Mapping[int, str]
    aliased: int

    @functools.cached_property
    def schedule(self) -> tuple[Run, ...]:
        """All that runs, a fusion as one: loops by their number of trips, of a conditional its cheapest branch."""
        return tuple(self._runs(self.entry, 1))

    @property
    def cycles(self) -> int:
        """The compiler's estimate of all of it."""
        return sum(run.cycles for run in self.schedule)

    @property
    def moved(self) -> int:
        """Of the cycles, those of operations that do nothing but cast, transpose, copy, cut and join."""
        return sum(run.cycles for run in self.schedule if self.kinds(run.instruction) <= {*MOVES})

    def costly(self, count: int) -> list[tuple[str, str, int, int]]:
        """Lines of our code by the cycles of what comes from them: (line, operation, cycles, instructions)."""
        cycles, instructions = Counter(), Counter()
        for run in filter(lambda run: run.cycles, self.schedule):
            key = self.lines.get(run.instruction.frame, "?"), self.label(run.instruction)
            cycles[key] += run.cycles
            instructions[key] += 1
        return [(*key, value, instructions[key]) for key, value in cycles.most_common(count)]

    def collectives(self) -> dict[str, tuple[int, int]]:
        """Kind -> (how many run, bytes of their results on one chip).

        One that is sent piece by piece, while fusions compute, is named in each of them and counts once.
        """
        counts, sizes, known = Counter(), Counter(), set()
        for run in self.schedule:
            for kind, inside in self._collectives_of(run.instruction):
                if not inside.channel or (kind, inside.channel) not in known:
                    counts[kind] += run.times
                    sizes[kind] += run.times * size_of(inside.type)
                known.add((kind, inside.channel))
        return {kind: (counts[kind], sizes[kind]) for kind in sorted(counts)}

    def host_transfers(self) -> list[str]:
        """Names of the instructions that talk to the host."""
        return [
            instruction.name
            for instructions in self.computations.values()
            for instruction in instructions
            if instruction.kind.removesuffix("-done") in HOST or "callback" in instruction.value
        ]

    def products(self) -> list[Product]:
        """All matrix products and convolutions, inside of fusions or not."""
        found = []
        for instructions in self.computations.values():
            types = {instruction.name: instruction.type for instruction in instructions}
            found += [
                Product(
                    tuple(types[name].partition("[")[0] for name in x.operands),
                    x.operation,
                    self.lines.get(x.frame, "?"),
                )
                for x in instructions
                if x.kind in PRODUCTS
            ]
        return found

    def kinds(self, instruction: Instruction) -> set[str]:
        """Opcodes of an instruction and of all that it is made of."""
        inside = (x for name in instruction.calls for x in self.computations[name])
        return {instruction.kind}.union(*map(self.kinds, inside))

    def label(self, instruction: Instruction) -> str:
        """`product`, `reduction`, `moved` or what else an instruction is."""
        kinds = self.kinds(instruction)
        if kinds & {*PRODUCTS}:
            return "product"
        if kinds <= {*MOVES}:
            return "moved"
        for kind in ("gather", "scatter", "sort", "reduce-window", "select-and-scatter", "reduce", "custom-call"):
            if kind in kinds:
                return kind
        return "elementwise" if instruction.kind == "fusion" else instruction.kind

    def _runs(self, name: str, times: int) -> Iterator[Run]:
        for instruction in self.computations[name]:
            yield Run(instruction, times)
            if instruction.kind == "while":
                yield from self._runs(instruction.calls[0], times * self._trips(instruction))
            elif instruction.kind == "conditional":
                branches = [tuple(self._runs(branch, times)) for branch in instruction.calls]
                yield from min(branches, key=lambda runs: sum(run.cycles for run in runs))
            elif instruction.kind == "call":
                yield from self._runs(instruction.calls[0], times)

    def _trips(self, loop: Instruction) -> int:
        """Of a loop that counts up from 0 to a constant, as those of `jax.lax.scan` do; ValueError of another."""
        pending, constants = [loop.condition], []
        while pending:
            for instruction in self.computations[pending.pop()]:
                pending += instruction.calls
                constants += [instruction.value] if instruction.kind == "constant" else []
        if len(constants) != 1 or not constants[0].isdigit():
            raise ValueError(f"{loop.name}: the number of trips is not known: {constants}")
        return int(constants[0])

    def _collectives_of(self, instruction: Instruction) -> Iterator[tuple[str, Instruction]]:
        """What an instruction of the schedule sends; the second half of an asynchronous pair sends nothing more."""
        kind = instruction.kind.removesuffix("-start")
        if kind in COLLECTIVES:
            yield kind, instruction
        if instruction.kind in ("fusion", "async-start"):
            for name in instruction.calls:
                for inside in self.computations[name]:
                    for kind, sent in self._collectives_of(inside):
                        scattered = kind == "all-reduce" and name.startswith("all-reduce-scatter")
                        yield "reduce-scatter" if scattered else kind, sent


def parse(text: str) -> Module:
    """Reads the text of a compiled program."""
    computations, entry, current = {}, "", []
    for line in text.splitlines():
        if opening := COMPUTATION.match(line):
            current = computations.setdefault(opening["name"], [])
            entry = opening["name"] if opening["entry"] else entry
        elif found := INSTRUCTION.match(line):
            current.append(_instruction(found["name"], found["rest"]))
    header = text.partition("\n")[0]
    return Module(computations, entry, source_lines(text), len(re.findall(r"-alias\)", header)))


def _instruction(name: str, rest: str) -> Instruction:
    type_end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    type_, rest = rest[:type_end], rest[type_end:].lstrip()
    kind, rest = rest[: rest.index("(")], rest[rest.index("(") :]
    end = _closing(rest)
    value, attributes = rest[1:end], rest[end + 1 :]
    calls = tuple(name for group in CALLED.findall(attributes) for name in re.findall(r"%([^\s,{}]+)", group))
    return Instruction(
        name=name,
        kind=kind,
        type=type_,
        operands=tuple(re.findall(r"%([^\s,)]+)", value)),
        calls=calls,
        condition=_first(r"\bcondition=%([^\s,]+)", attributes),
        cycles=int(_first(r'"estimated_cycles":"(\d+)"', attributes) or 0),
        channel=_first(r"channel_id=(\d+)", attributes),
        frame=int(_first(r"stack_frame_id=(\d+)", attributes) or 0),
        operation=_first(r'op_name="([^"]*)"', attributes),
        value=value if kind == "constant" else attributes if kind == "custom-call" else "",
    )


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[1] if found else ""


def _closing(text: str) -> int:
    """Position of the parenthesis that closes the one which a text begins with."""
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.start()
    raise ValueError(f"a parenthesis is not closed: {text:.80}")


def size_of(type_: str) -> int:
    """Bytes of all arrays of a type, without padding."""
    sizes = (BITS.get(dtype, 0) * _count(shape) for dtype, shape in ARRAY.findall(type_))
    return sum(sizes) // 8


def _count(shape: str) -> int:
    count = 1
    for size in filter(None, shape.split(",")):
        count *= int(size)
    return count


def source_lines(text: str) -> dict[int, str]:
    """Frame -> `file:line` of its innermost call in `umemma_jax`, from the tables at the head of a program."""
    tables = {
        title: dict(re.findall(r"^(\d+) (.*)$", _first(rf"(?ms)^{title}\n(.*?)\n\n", text), re.MULTILINE))
        for title in ("FileNames", "FileLocations", "StackFrames")
    }
    files = {number: name.strip('"') for number, name in tables["FileNames"].items()}
    places = {
        number: (files[_first(r"file_name_id=(\d+)", of)], _first(r"\bline=(\d+)", of))
        for number, of in tables["FileLocations"].items()
    }
    found = {}
    for number, of in sorted(tables["StackFrames"].items(), key=lambda item: int(item[0])):
        path, line = places[_first(r"file_location_id=(\d+)", of)]
        parent = int(_first(r"parent_frame_id=(\d+)", of)) - 1  # numbered from 1 in the text, with 0 for none before
        inside = path.rpartition("umemma_jax/")
        place = f"{inside[2]}:{line}" if inside[1] else found.get(parent)
        if place:
            found[int(number)] = place
    return found
