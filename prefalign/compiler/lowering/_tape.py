"""Running a program on tensors: log-probabilities in, ρ out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...logic import original
from ...losses import log1mexp
from ._program import Chain, Program

# Stands for the log of an impossible answer's probability: sums of it stay finite, and so do gradients.
FLOOR = -1e300
HALF = (torch.float16, torch.bfloat16)
# Registers to add (sign +1) or subtract (sign -1), the first of them with +1.
Terms = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Tape:
    """A program with its values numbered: the atoms, then the logs of their complements, then the sums.

    Args:
        atoms: Whose log-probabilities are the first registers.
        complements: The registers whose complement's log follows, in this order.
        steps: logaddexp of two sums of registers; each makes the next register.
        result: Sums with signs; ρ is what they add up to.
        constant: ρ does not depend on the policy.
    """

    atoms: tuple[str, ...]
    complements: tuple[int, ...]
    steps: tuple[tuple[Terms, Terms], ...]
    result: tuple[tuple[int, Terms], ...]
    constant: bool

    @property
    def exact(self) -> bool:
        """Whether float64 is needed."""
        return bool(self.complements or self.steps)


def number(program: Program, default: str, copies: bool = True) -> Tape:
    """The tape of a program.

    Args:
        default: The atom to take a shape from where the program uses none.
        copies: Whether a copy (w2) has its atom's probability; else it is an atom like the others.
    """
    chains = [chain for pair in program.steps for chain in pair] + [chain for _, chain in program.result]
    slots = [slot for chain in chains for _, slot in chain]
    # A copy such as w2 is another proposition with the same probability.
    names = {str(name): original(str(name)) if copies else str(name) for kind, name in slots if kind != "+"}
    atoms = tuple(dict.fromkeys([*names.values(), *([default] * program.is_constant)]))
    ones = tuple(dict.fromkeys(names[str(name)] for kind, name in slots if kind == "1-p"))
    place: dict[tuple[str, str | int], int] = {("p", name): atoms.index(names[name]) for name in names}
    place |= {("1-p", name): len(atoms) + ones.index(names[name]) for name in names if names[name] in ones}
    place |= {("+", i): len(atoms) + len(ones) + i for i in range(len(program.steps))}

    def terms(chain: Chain) -> Terms:
        return tuple((sign, place[slot]) for sign, slot in chain)

    return Tape(
        atoms,
        tuple(atoms.index(name) for name in ones),
        tuple((terms(left), terms(right)) for left, right in program.steps),
        tuple((sign, terms(chain)) for sign, chain in program.result),
        program.is_constant,
    )


def run(tape: Tape, logps: Sequence[Tensor]) -> Tensor:
    """ρ = log top - log bottom, in nats.

    Args:
        tape: From `number`.
        logps: The log-probability (nats, <= 0) of each of the tape's atoms, in their order; tensors that broadcast.

    Returns:
        Float64 where 1 - p or a sum of probabilities is needed, else in the inputs' dtype, at least float32.
    """
    registers = list(logps)
    if tape.complements or tape.steps or tape.constant:
        registers = [x.double() for x in registers]
        if tape.steps or tape.constant:
            registers = [x.clamp(min=FLOOR) for x in registers]  # logaddexp of two -inf has a NaN gradient
        registers += [log1mexp(registers[i]) for i in tape.complements]
        for left, right in tape.steps:
            registers.append(torch.logaddexp(_total(registers, left), _total(registers, right)))
    elif registers[0].dtype in HALF:
        registers = [x.float() for x in registers]
    result = tape.result
    if tape.constant:  # top and bottom are the same: the gradient is 0, and must exist
        rho = 0.0 * registers[-1]
    else:
        (sign, first), *result = tape.result  # type: ignore[assignment]
        rho = _total(registers, first) if sign > 0 else -_total(registers, first)
    for sign, chain in result:
        rho = rho + _total(registers, chain) if sign > 0 else rho - _total(registers, chain)
    return rho


def _total(registers: list[Tensor], terms: Terms) -> Tensor:
    total = registers[terms[0][1]]
    for sign, i in terms[1:]:
        total = total + registers[i] if sign > 0 else total - registers[i]
    return total
