"""Losses that are compiled from logic."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..._errors import LossError
from ...logic import PreferenceStructure, original
from ...losses import Loss, PairLogps
from ._links import TENSOR_LINKS, find_link
from ._program import compile_structure
from ._summed import ADVICE, summed_behaviour
from ._tape import HALF, Tape, number, run

_PAIR_ATOMS = ("w", "l", "rw", "rl")


def check_beta(loss: LogicLoss | GroupLoss) -> None:
    """Check `link` and `beta`; a missing beta is 0.1 where the link uses one."""
    uses = find_link(loss.link).uses_beta
    beta = loss.beta
    if not uses and beta is not None:
        raise LossError(f"`beta` has no effect under the link '{loss.link}' (got {beta!r}). Leave it out.")
    if uses and beta is None:
        object.__setattr__(loss, "beta", 0.1)
    elif uses and (isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 < beta < float("inf")):
        raise LossError(f"`beta` must be a finite number > 0 (got {beta!r}).")


def check_parts(structure: PreferenceStructure) -> None:
    """Check that the ratio is neither infinite nor undefined."""
    for mask, name, formula in (
        (structure.top_mask, "top", "(P | P_A) & P_C"),
        (structure.bottom_mask, "bottom", "(~P | P_A) & P_C"),
    ):
        if not mask:
            raise LossError(
                f"`structure` must have rows on both sides (its {name}, {formula}, is unsatisfiable: the loss would be "
                "infinite everywhere). Weaken P_C or add to P_A."
            )


def returned(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The loss in the dtype of the log-probabilities, but float32 at least."""
    dtype = torch.float32 if dtype in HALF else dtype
    return value if value.dtype == dtype else value.to(dtype)


@dataclass(frozen=True)
class LogicLoss(Loss):
    """The semantic loss of a preference structure: a link on the log ratio of its weighted model counts.

    link(rho),  rho = log WMC((P | P_A) & P_C) - log WMC((~P | P_A) & P_C)  [+ log ref(l) - log ref(w)]

    Usually made by `to_loss` or `logic`. Structures that use 1 - p are evaluated in float64 and returned in the inputs'
    dtype; the others are plain sums in the inputs' dtype. Half precision is read as, and returned in, float32.

    Args:
        structure: Over w, l, rw, rl (and copies); top and bottom satisfiable.
        link: "logistic", "hinge", "scaled_hinge", "perceptron", "square", "sigmoid" or "exponential".
        beta: The link's parameter, dimensionless, > 0; None for the link "perceptron", which has none.
        reference: Use the reference form: log ref(l) - log ref(w) is added to rho. Only for structures without R.
        mean: Means over tokens in nats, for policy and reference; False: sums over tokens.

    Raises:
        LossError: An argument is out of range, or top or bottom is unsatisfiable.

    Warns:
        UserWarning: Sums over tokens make the loss dead or saturated, or it is a constant.

    Source: Richardson, Srikumar, Sabharwal 2025, arXiv:2412.17696.
    """

    structure: PreferenceStructure
    link: str = "logistic"
    beta: float | None = None
    reference: bool = True
    mean: bool = False
    tape: Tape = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_beta(self)
        check_parts(self.structure)
        for name in ("reference", "mean"):
            if not isinstance(getattr(self, name), bool):
                raise LossError(f"`{name}` must be True or False (got {getattr(self, name)!r}).")
        small = self.structure.reduced
        strange = [atom for atom in small.atoms if original(atom) not in _PAIR_ATOMS]
        if strange:
            raise LossError(f"`structure` must be over w, l, rw, rl (got `{strange[0]}`); use `to_loss` for groups.")
        if self.reference and small.needs_reference:
            raise LossError(
                "`reference=True` is for structures without R(w) and R(l) (this one has them). Use reference=False."
            )
        object.__setattr__(self, "tape", number(compile_structure(small, self.reference), "w"))
        kind = summed_behaviour(small)
        advice = "" if self.mean else ADVICE.get(kind, "")
        if self.tape.constant:
            advice = "top and bottom are the same, so that it has no gradient. Change P, P_C or P_A."
        if advice:
            rows = small.rows if len(small.atoms) <= 4 else f"{1 << len(small.atoms)} of them"
            warnings.warn(f"The loss with the rows {rows}: {advice}", UserWarning, stacklevel=4)

    def __call__(self, pair_logps: PairLogps) -> Tensor:
        """The loss of every pair, shape (pairs,)."""
        chosen, rejected = pair_logps.logps(self.mean)
        if not self.needs_reference:
            return self.of_logps({"w": chosen, "l": rejected})
        ref_chosen, ref_rejected = pair_logps.reference()
        if self.mean:
            chosen_tokens, rejected_tokens = pair_logps.tokens()
            ref_chosen, ref_rejected = ref_chosen / chosen_tokens, ref_rejected / rejected_tokens
        return self.of_logps({"w": chosen, "l": rejected, "rw": ref_chosen, "rl": ref_rejected})

    def of_logps(self, logps: dict[str, Tensor]) -> Tensor:
        """The loss from log-probabilities by atom (w, l, rw, rl), in nats, sums or means as they are given."""
        rho = run(self.tape, [logps[atom] for atom in self.tape.atoms])
        value: Tensor = TENSOR_LINKS[self.link].apply(rho, self.beta or 0.0)
        return returned(value, logps["w"].dtype)

    @property
    def needs_reference(self) -> bool:
        """Whether rho contains the reference's probabilities."""
        return "rw" in self.tape.atoms or "rl" in self.tape.atoms

    @property
    def formula(self) -> str:
        """The formula with its numbers."""
        rho = f"log[{self.structure.ratio}]"
        if self.reference:
            rho = f"({rho} + log rl - log rw)"
        beta = "" if self.beta is None else f"{self.beta:g}"
        return find_link(self.link).formula.format(beta=beta, rho=rho)

    @property
    def title(self) -> str:
        """The formula in logic."""
        s = self.structure
        return f"Logic(prefer {s.P}, given {s.P_C}, also {s.P_A})"

    @property
    def expression(self) -> str:
        """Text that `parse_loss` reads back to an equal loss."""
        s = self.structure
        words = [f"'{s.P.ascii}'", f"given='{s.P_C.ascii}'", f"also='{s.P_A.ascii}'", f"link='{self.link}'"]
        words += [] if self.beta is None else [f"beta={self.beta!r}"]
        return f"logic({', '.join(words)}, reference={self.reference}, mean={self.mean})"


@dataclass(frozen=True)
class GroupLoss:
    """The semantic loss of a structure over K answers y1 … yK to one prompt.

    link(rho),  rho = log WMC((P | P_A) & P_C) - log WMC((~P | P_A) & P_C)

    Args:
        structure: Over y1 … yK; top and bottom satisfiable.
        link: As in `LogicLoss`.
        beta: As in `LogicLoss`.

    Raises:
        LossError: An argument is out of range, or top or bottom is unsatisfiable.

    Example:
        >>> one = "(y1 & ~y2) | (~y1 & y2)"  # exactly one of the two answers is valid
        >>> best = to_loss(PreferenceStructure.from_formulas("y1", given=one), beta=1.0)
        >>> best(torch.log(torch.tensor([[0.5, 0.5]])))
        tensor([0.6931])
    """

    structure: PreferenceStructure
    link: str = "logistic"
    beta: float | None = None
    tape: Tape = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_beta(self)
        check_parts(self.structure)
        strange = [atom for atom in self.structure.reduced.atoms if not atom.startswith("y")]
        if strange:
            raise LossError(f"`structure` must be over y1, y2, … (got `{strange[0]}`).")
        object.__setattr__(self, "tape", number(compile_structure(self.structure.reduced), "y1"))

    @property
    def answers(self) -> int:
        """The least K that the structure needs."""
        return max(int(atom[1:]) for atom in self.structure.atoms)

    def __call__(self, logps: Tensor) -> Tensor:
        """The loss of every group, shape (groups,).

        Args:
            logps: Log-probabilities in nats, shape (groups, K), sums or means over tokens as you choose; a structure
                that uses 1 - p says nothing about sums, which leave p = 0.

        Raises:
            LossError: The shape is wrong.
        """
        if logps.ndim != 2 or logps.shape[1] < self.answers:
            raise LossError(
                f"`logps` must have the shape (groups, {self.answers}) or wider (got {tuple(logps.shape)})."
            )
        rho = run(self.tape, [logps[:, int(atom[1:]) - 1] for atom in self.tape.atoms])
        value: Tensor = TENSOR_LINKS[self.link].apply(rho, self.beta or 0.0)
        return returned(value, logps.dtype)

    def __str__(self) -> str:
        beta = "" if self.beta is None else f"{self.beta:g}"
        rho = f"log[{self.structure.ratio}]" if len(self.structure.atoms) <= 6 else "rho"
        return f"GroupLoss over {self.answers} answers: {find_link(self.link).formula.format(beta=beta, rho=rho)}"
