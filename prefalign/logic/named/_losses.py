"""The named losses: what the papers state, as data. `_catalogue.py` makes them findable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import sympy

from ..structures import BETA, LINKS, RHO, Link

LOGIC_PAPER = "Richardson, Srikumar, Sabharwal 2025, arXiv:2412.17696"
ORDER_NOTE = "named in the lattice figure; the equation is the only one that fits it"


@dataclass(frozen=True)
class Term:
    """One term of a named loss: weight · link(log of the equation's ratio), where the guard holds."""

    equation: str
    link: Link = field(default_factory=lambda: LINKS["logistic"])
    weight: sympy.Expr | int = 1
    guard: sympy.Basic | None = None


@dataclass(frozen=True)
class Named:
    """A loss as the literature has it.

    Args:
        name: As its paper writes it.
        paper: Where it comes from.
        terms: One Term, or several for a sum of losses.
        origin: "authors" where the logic paper prints the equation or P; "derived" where it follows.
        aliases: Other names.
        column: The rows TT, TF, FT, FF, for the losses of the table.
        note: What must be said beside it.
    """

    name: str
    paper: str
    terms: tuple[Term, ...]
    origin: Literal["authors", "derived"]
    aliases: tuple[str, ...] = ()
    column: str = ""
    note: str = ""


def _table() -> Iterable[Named]:
    """The sixteen without a reference."""
    orpo, cpo = "Hong, Lee, Thorne 2024, arXiv:2403.07691", "Xu et al. 2024, arXiv:2401.08417"
    rows: list[tuple[str, str, str, str, tuple[str, ...], str]] = [
        ("CEUnl", "xvxx", "w*(1-l)/(1-w*(1-l))", "authors", ("ce-unlikelihood",), ""),
        ("CE", "vvxx", "w/(1-w)", "authors", ("cross-entropy", "nll"), ""),
        ("ORPO", "ovxo", "w*(1-l)/(l*(1-w))", "authors", ("odds-ratio",), orpo),
        ("CPO", "bvxo", "w/l", "authors", ("contrastive-preference-optimization",), cpo),
        ("unCPO", "vvxv", "(1-l*(1-w))/(l*(1-w))", "authors", (), ""),
        ("cCPO", "vvxo", "w/(l*(1-w))", "derived", (), ""),
        ("fUNL", "xvxv", "(1-l)/l", "derived", ("unlikelihood",), ""),
        ("cUNL", "xvxo", "w*(1-l)/l", "derived", (), ""),
        ("cfUNL", "ovxv", "(1-l)/(l*(1-w))", "derived", (), ""),
        ("qfUNL", "ovxb", "(1-l)/(1-w)", "derived", (), ""),
        ("l20", "xvxb", "(1-l)/(1-w*(1-l))", "derived", (), ""),
        ("sCE", "bvxx", "w/(1-w*(1-l))", "derived", (), ""),
        ("l3", "ovxx", "w*(1-l)/(1-w)", "derived", (), ""),
        ("bCPO", "vvxb", "(1-l*(1-w))/(1-w)", "derived", (), ""),
        ("l14", "bvxv", "(1-l*(1-w))/l", "derived", (), ""),
        ("l5", "bvxb", "(1-l*(1-w))/(1-w*(1-l))", "derived", (), ""),
    ]
    for name, column, equation, origin, aliases, paper in rows:
        yield Named(
            name,
            f"{paper}; {LOGIC_PAPER}" if paper else LOGIC_PAPER,
            (Term(equation),),
            "authors" if origin == "authors" else "derived",
            aliases,
            column,
            "" if origin == "authors" else ORDER_NOTE,
        )


_DPO, _CPO, _CHOSEN, _REJECTED = "w*rl/(rw*l)", "w/l", "w/rw", "rl/l"


def _pairwise() -> Iterable[Named]:
    """One structure each: DPO's or CPO's, with other links and margins."""
    alpha, delta, tau = sympy.symbols("alpha delta tau")
    longer = sympy.Symbol("length_w") - sympy.Symbol("length_l")
    logistic = LINKS["logistic"]
    up = 1 / (1 + sympy.exp(-BETA * RHO / tau))
    disco = Link(logistic.expression * (1 - up) + sympy.exp(-BETA * RHO) * up, "turning", "log-ratio modulated")
    yield Named("DPO", "Rafailov et al. 2023, arXiv:2305.18290, Eq. 7", (Term(_DPO),), "authors", ("sigmoid",))
    yield Named("IPO", "Azar et al. 2023, arXiv:2310.12036", (Term(_DPO, LINKS["square"]),), "authors")
    note = "its regulariser is stripped; with it: SLiC-HF"
    yield Named("SLiC", "Zhao et al. 2023, arXiv:2305.10425", (Term(_CPO, LINKS["hinge"]),), "authors", note=note)
    note = "w and l are read as length-normalised probabilities"
    yield Named("RRHF", "Yuan et al. 2023, arXiv:2304.05302", (Term(_CPO, LINKS["perceptron"]),), "authors", note=note)
    note = (
        "R is a manual reference with log(rw/rl) = gamma/beta: as code, w/l with the margin -gamma/beta; w, l per token"
    )
    yield Named("SimPO", "Meng, Xia, Chen 2024, arXiv:2405.14734", (Term(_DPO),), "authors", note=note)
    note = "where its penalty acts (w < rw), with penalty weight 1; elsewhere it is DPO. w2, rw2 are copies of w, rw"
    terms = (Term("w*w2*rl/(rw*rw2*l)"),)
    yield Named("DPOP", "Pal et al. 2024, arXiv:2402.13228", terms, "authors", ("dpo-positive", "smaug"), note=note)
    terms = (Term(_DPO, logistic.with_margin(alpha * longer / BETA)),)
    note = "alpha is the price of a token in the reward: a longer chosen answer has less to gain"
    paper = "Park et al. 2024, arXiv:2403.19159"
    yield Named("R-DPO", paper, terms, "authors", ("length-regularised-dpo",), note=note)
    gamma = sympy.Symbol("gamma")
    focal = Link(logistic.expression * (1 + sympy.exp(-BETA * RHO)) ** -gamma, "turning", "focal")
    yield Named("FocalPO", "Liu et al. 2025, arXiv:2501.06645", (Term(_DPO, focal),), "derived")
    note = "w and l are read as length-normalised probabilities; beta is its margin gamma"
    paper = "Wu et al. 2025, arXiv:2503.07426"
    yield Named("RePO", paper, (Term(_CPO, LINKS["hinge"]),), "derived", ("re-po",), note=note)
    terms = (Term(_DPO, logistic.with_margin(-delta / BETA)),)
    yield Named("ODPO", "Amini, Vieira, Cotterell 2024, arXiv:2402.10571", terms, "authors", ("offset-dpo",))
    smoothed = (Term(_DPO, LINKS["smoothed"]),)
    paper = "Mitchell 2023, A note on DPO with noisy preferences"
    yield Named("cDPO", paper, smoothed, "derived", ("conservative-dpo", "label-smoothing"))
    yield Named("EXO", "Ji et al. 2024, arXiv:2402.00856", (Term(_DPO, LINKS["exo"]),), "derived", ("exo-pair",))
    yield Named("DiscoPOP", "Lu et al. 2024, arXiv:2406.08414", (Term(_DPO, disco),), "derived")
    note = "R is the averaged (soup) reference"
    yield Named("SALSA", "Chegini et al. 2024, arXiv:2411.01798", (Term(_DPO),), "derived", note=note)


def _sums() -> Iterable[Named]:
    """Several rules each: no single formula says what these prefer."""
    epsilon, eta, zeta, delta = sympy.symbols("epsilon eta zeta delta")
    desirable, undesirable = sympy.symbols("lambda_d lambda_u")
    logistic, sigmoid, square = LINKS["logistic"], LINKS["sigmoid"], LINKS["square"]
    half = sympy.Rational(1, 2)
    terms: tuple[Term, ...] = (
        Term(_DPO, weight=(1 - epsilon) / (1 - 2 * epsilon)),
        Term("rw*l/(w*rl)", weight=-epsilon / (1 - 2 * epsilon)),
    )
    note = "a signed mixture of DPO's structure and its swap; written on DPO's alone the link decreases"
    paper = "Chowdhury, Kini, Natarajan 2024, arXiv:2403.00409"
    yield Named("rDPO", paper, terms, "derived", ("robust", "robust-dpo"), note=note)
    terms = (Term(_DPO), Term("w/(1-w)", logistic.at(beta=1), eta * BETA))
    note = "the second rule is -log w: the semantic loss of M(w)"
    yield Named("RPO", "Liu et al. 2024, arXiv:2405.16436, Eq. 4.8", terms, "derived", note=note)
    terms = (Term(_CPO, LINKS["hinge"]), Term("w/(1-w)", logistic.at(beta=1), eta))
    note = "whole: SLiC's hinge, and eta times -log w, the semantic loss of M(w)"
    yield Named("SLiC-HF", "Zhao et al. 2023, arXiv:2305.10425", terms, "derived", note=note)
    terms = (
        Term(_CHOSEN, sigmoid.with_margin(-zeta), desirable),
        Term(_REJECTED, sigmoid.with_margin(zeta), undesirable),
    )
    note = "unpaired: each rule sees its own examples; zeta is the batch's KL estimate, in nats"
    yield Named("KTO", "Ethayarajh et al. 2024, arXiv:2402.01306", terms, "derived", note=note)
    terms = (Term(_CHOSEN, logistic.with_margin(-delta / BETA)), Term(_REJECTED, logistic.with_margin(delta / BETA)))
    note = "delta is the reward shift, a running mean"
    yield Named("BCO", "Jung et al. 2024, arXiv:2404.04656", terms, "derived", ("bco-pair",), note=note)
    turned = logistic.expression + half * sympy.log(1 + sympy.exp(BETA * RHO))
    terms = (Term(_CHOSEN, Link(turned, "turning", "noise contrastive")), Term(_REJECTED, logistic, half))
    yield Named("NCA", "Chen et al. 2024, arXiv:2402.05369", terms, "derived", ("nca-pair",))
    yield Named(
        "SPPO",
        "Wu et al. 2024, arXiv:2405.00675",
        (Term(_CHOSEN, square), Term(_REJECTED, square)),
        "derived",
        ("sppo-hard",),
    )
    paper = "Xiao et al. 2024, arXiv:2412.14516"
    terms = (Term(_DPO, logistic.at(beta=1)), Term(_CHOSEN, square), Term(_REJECTED, square))
    yield Named("Cal-DPO", paper, terms, "derived")
    falls = sympy.exp(-RHO)
    terms = (Term("w", Link(-sympy.exp(RHO), "decreasing", "probability")), Term("1/l", Link(falls, "decreasing")))
    note = "w and l are read as length-normalised probabilities"
    yield Named("SimPER", "Xiao et al. 2025, arXiv:2502.00883", terms, "derived", note=note)
    paper = "D'Oosterlinck et al. 2024, arXiv:2408.06266"
    yield Named("APO-zero", paper, (Term(_CHOSEN, sigmoid), Term(_REJECTED, sigmoid)), "derived", ("apo",))
    yield Named("APO-down", paper, (Term("rw/w", sigmoid), Term(_DPO, sigmoid)), "derived")
    w, rw = sympy.symbols("w rw")
    terms = (Term(_DPO, guard=sympy.Ge(w, rw)), Term("w*l/(rw*rl)", guard=sympy.Lt(w, rw)))
    note = "chooses between two structures by its anchor; R is a past checkpoint, and l the sample it generated"
    yield Named("SePPO", "Zhang et al. 2024, arXiv:2410.05255", terms, "derived", ("sspo",), note=note)


@cache
def named_losses() -> tuple[Named, ...]:
    """All of them, built when first asked for: importing stays cheap."""
    return (*_table(), *_pairwise(), *_sums())


# Names that people will ask for, and why they have no entry.
_TWO_RATIOS = (
    "it is a function of g(rho_1) - g(rho_2), which has no single ratio; `derive` reads it off the loss object"
)
REFUSED = {
    **dict.fromkeys(
        ("f-dpo", "fdpo", "chi-po", "chipo", "squared-po", "squaredpo", "alpha-po", "alphapo"), _TWO_RATIOS
    ),
    **dict.fromkeys(
        ("beta-dpo", "betadpo"), "its beta is that of the batch's mean margin; the loss is DPO's structure"
    ),
    "aot": "it sorts the margins of a batch, so that no pair has a ratio of its own",
    "aotunpaired": "it sorts the margins of a batch, so that no pair has a ratio of its own",
    "drdpo": "it takes a logarithm of a mean over the batch; the loss inside is DPO's structure",
    "sft": "it is -log w: the semantic loss of M(w), which is the structure `ce` under the logistic link at beta = 1",
}
