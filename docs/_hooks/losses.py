"""MkDocs hook: one page per loss, made from the loss itself, when the site is built. Nothing generated is committed."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

GUIDE = Path(__file__).parents[1] / "losses.md"
# What each page shows: a class of `prefalign.losses`, and the loss that stands for it.
EXAMPLES = {
    "DPO": "dpo(beta=0.1)",
    "IPO": "ipo(beta=0.1)",
    "SLiC": "slic(beta=0.1)",
    "DPOP": "dpop(beta=0.1, penalty=5.0)",
    "EXO": "exo(beta=0.1)",
    "DiscoPOP": "discopop(beta=0.1)",
    "NCA": "nca(beta=0.1)",
    "BCO": "bco(beta=0.1)",
    "SPPO": "sppo(beta=0.05)",
    "APOZero": "apo_zero(beta=0.1)",
    "APODown": "apo_down(beta=0.1)",
    "SimPO": "simpo(beta=2.0, gamma=0.5)",
    "CPO": "cpo(beta=0.1)",
    "ORPO": "orpo(beta=0.2)",
    "OddsRatio": "odds_ratio()",
    "RankHinge": "rank_hinge(delta=1.0)",
    "SLiCHF": "slic_hf(delta=1.0, regulariser=0.1)",
    "SFT": "sft(reduction='sum')",
    "Robust": "robust(dpo(beta=0.1), flip_rate=0.3)",
    "Smoothed": "smoothed(dpo(beta=0.1), flip_rate=0.3)",
    "DrDPO": "dr_dpo(beta=0.1)",
    "HolderDPO": "holder_dpo(beta=0.1)",
    "AOT": "aot(beta=0.1)",
    "AOTUnpaired": "aot_unpaired(beta=0.1)",
    "RPO": "rpo(beta=0.1, eta=0.5, reduction='sum')",
    "SePPO": "seppo(beta=0.1)",
    "FDivergence": "f_divergence(dpo(beta=0.1), divergence='js')",
    "ChiPO": "chi_po(beta=0.1)",
    "SquaredPO": "squared_po(beta=0.1)",
    "AlphaPO": "alpha_po(beta=2.5, gamma=0.1, alpha=0.25)",
    "RDPO": "r_dpo(beta=0.1, alpha=0.02)",
    "FocalPO": "focal_po(beta=0.1)",
    "CalDPO": "cal_dpo(beta=0.01)",
    "BetaDPO": "beta_dpo(beta=0.1, alpha=0.6)",
    "SimPER": "sim_per()",
    "Calibrated": "calibrated(dpo(beta=0.1))",
    "LD": "ld(dpo(beta=0.1), alpha=0.5)",
    "SamPO": "sampo(dpo(beta=0.1), seed=0)",
    "WPO": "wpo(dpo(beta=0.1))",
    "TDPO": "tdpo(beta=0.1, alpha=0.5)",
    "PlackettLuce": "plackett_luce(beta=0.1)",
    "BestOf": "best_of(beta=0.1)",
    "LiPO": "lipo(beta=0.1)",
    "Pairs": "pairs(dpo(beta=0.1), which='adjacent')",
    "ODPO": "odpo(beta=0.1)",
    "RaoKupper": "rao_kupper(beta=0.1, tie=0.5)",
    "Davidson": "davidson(beta=0.1, tie=0.5)",
    "KTO": "kto(beta=0.1)",
    "UnpairedBCO": "unpaired_bco(beta=0.1)",
    "UnpairedAPO": "unpaired_apo(beta=0.1)",
}
JUDGED = {"ranking": "ranking", "best": "best one", "scores": "scores", "label": "labels"}
BASES = {"Loss", "Composite", "WeightedSum"}
TOKENS, START = 20.0, -30.0  # of every completion in the picture: its length, and the reference's log-probability


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the pages in the navigation, below the guide to the losses."""
    entries = [{name: f"losses/{text.partition('(')[0]}.md"} for name, text in EXAMPLES.items()]
    (section,) = (item["Losses"] for item in config.nav or [] if "Losses" in item)
    section.append({"One page per loss": entries})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    from mkdocs.structure.files import File

    for slug, text in pages().items():
        files.append(File.generated(config, f"losses/{slug}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Link the tables of the guide to the pages; put every loss's picture into the gallery."""
    if page.file.src_uri == "gallery.md":
        return markdown.replace("<!-- losses -->", "\n\n".join(_gallery()))
    if page.file.src_uri != "losses.md":
        return markdown
    return re.sub(r"^\| `(\w+)`: `(\w+)\(", r"| [`\1`](losses/\2.md): `\2(", markdown, flags=re.MULTILINE)


@cache
def pages() -> dict[str, str]:
    """The name in expressions of every loss, with its page."""
    import prefalign.losses
    from prefalign.losses import Loss, parse_loss

    public = {
        name
        for name, value in vars(prefalign.losses).items()
        if isinstance(value, type) and issubclass(value, Loss) and name not in BASES
    }
    assert public == EXAMPLES.keys(), f"losses without a page, or pages without a loss: {public ^ EXAMPLES.keys()}"
    return {text.partition("(")[0]: _page(name, parse_loss(text)) for name, text in EXAMPLES.items()}


def _gallery() -> Iterator[str]:
    from prefalign.losses import parse_loss

    for name, text in EXAMPLES.items():
        loss = parse_loss(text)
        if loss.reads in ("label", "scores"):
            continue  # pairs do not have what it reads
        margins = [float(x) for x in range(-30, 31, 2)]
        yield f"### [{name}](losses/{text.partition('(')[0]}.md)\n\n`{loss.expression}`"
        yield _picture(loss.title, margins, measure(loss, margins))


def _page(name: str, loss: Any) -> str:
    when, papers = _from_guide(name)
    summary = (inspect.getdoc(type(loss)) or "").partition("\n")[0]
    reads = "the log-probabilities of " + ("policy and reference" if loss.needs_reference else "the policy alone")
    reads += ", and the lengths of the completions" if loss.needs_lengths else ""
    reads += ", and single tokens" if loss.reads_tokens else ""
    reads += f", of groups of answers, and their {JUDGED[loss.reads]}" if loss.reads != "pair" else ""
    lines = [
        f"# {name}",
        summary,
        f"**When to use.** {when}" if when else "",
        f"**Paper.** {papers}" if papers else "",
        f"**Reads** {reads}.",
        f"```yaml\nloss: {loss.expression}\n```",
        "It prints as the formula it computes:",
        f"```text\n{loss}\n```",
        "## Logic",
        *_logic(loss),
        "## Gradient",
        *_gradient(loss),
        "## Arguments",
        f"::: prefalign.losses.{name}\n    options:\n      heading_level: 3\n      members: false\n"
        "      show_root_heading: true\n      show_bases: false",
        "[All losses](../losses.md) · [how the logic is read off the code](../code-to-logic.md)",
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def _from_guide(name: str) -> tuple[str, str]:
    """When to use a loss and its papers, from the guide's tables: said there once."""
    row = re.search(rf"^\| `{name}`: (.*)\|$", GUIDE.read_text("utf-8"), re.MULTILINE)
    assert row, f"docs/losses.md has no row for {name}"
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row[1])]
    return cells[3], re.sub(r"\[(\d{4}\.\d{5})\]", r"[arXiv:\1]", cells[2])


def _logic(loss: Any) -> Iterator[str]:
    reading = _reading(loss)
    if isinstance(reading, str):
        yield f"This loss has no reading as propositions. `derive` says why:\n\n```text\n{reading}\n```"
        return
    yield "Read off the code of the loss by `prefalign.derive`, and checked against it:"
    yield f"```text\n{reading.page().strip()}\n```"


def _reading(loss: Any) -> Any:
    from prefalign import PrefalignError, derive

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return derive(loss)
    except PrefalignError as error:
        return str(error)


def _gradient(loss: Any) -> Iterator[str]:
    if loss.reads in ("label", "scores"):
        yield f"It reads {JUDGED[loss.reads]}, which pairs do not have: no picture over pairs."
        return
    reading = _reading(loss)
    if not isinstance(reading, str):
        yield "With the symbols above, the derivatives by the policy's log-probabilities are"
        yield "```text\n" + "\n".join(_derivatives(reading)) + "\n```"
    yield (
        f"Measured: a pair of completions of {TOKENS:g} tokens that start at the reference's log-probability, "
        f"{START:g} nats. D = r(w) - r(l) is moved by equal steps of both; each D is a batch of its own. A "
        "positive pull raises the chosen log-probability, a positive push lowers the rejected one, per nat (sum over "
        "tokens)."
    )
    margins = [float(x) for x in range(-30, 31)]
    curves = measure(loss, margins)
    yield "| D | loss | pull on chosen | push on rejected |\n|---|---|---|---|\n" + "\n".join(
        f"| {margins[i]:g} | " + " | ".join(f"{curve[i]:.4g}" for curve in curves) + " |" for i in (10, 30, 50)
    )
    yield _picture(loss.title, margins, curves)


def _derivatives(reading: Any) -> Iterator[str]:
    for place, (rule, slope, inner) in enumerate(slopes(reading), 1):
        where = f", where {rule.guard}" if rule.guard is not None else ""
        if len(rule.structures) == 2:
            first, second = rule.structures
            where += f", with rho_1 = log({first.ratio}), rho_2 = log({second.ratio}), rho = g(rho_1) - g(rho_2)"
        yield f"Rule {place}{where}: df/drho = {slope}"
        for side, of in (("W", "log pi(w)"), ("L", "log pi(l)")):
            if inner[side] != 0:
                yield f"    drho/d{of} = {_positive_below(inner[side])}"


def slopes(reading: Any) -> Iterator[tuple[Any, Any, dict[str, Any]]]:
    """Each rule with d(weight*f)/drho, and drho by the policy's summed log-probabilities W and L.

    Of a rule of two ratios rho is g(rho_1) - g(rho_2), and the latter are written in rho_1 and rho_2.
    """
    import sympy

    rho = sympy.Symbol("rho")
    for rule, meanings in zip(reading.rules, reading.meanings, strict=True):
        slope = sympy.simplify(rule.weight * sympy.diff(rule.link.expression, rho))
        if len(rule.structures) == 1:
            factors = [(sympy.Integer(1), rule.structure)]
        else:
            rises = sympy.diff(rule.inner.expression, rho)
            factors = [
                (sign * rises.subs(rho, sympy.Symbol(f"rho_{place}")), structure)
                for place, (sign, structure) in enumerate(zip((1, -1), rule.structures, strict=True), 1)
            ]
        inner = {
            side: sympy.factor(
                sympy.simplify(sum(factor * _slope(structure.ratio, meanings, side) for factor, structure in factors))
            )
            for side in ("W", "L")
        }
        yield rule, slope, inner


def _slope(ratio: Any, meanings: Any, side: str) -> Any:
    """The derivative of a log ratio by W or L, through the atoms.

    One may be a mean over tokens (W/n_w), or a copy with a power (w2 is penalty*W).
    """
    import sympy

    log_ratio = sympy.log(ratio)
    atoms = ratio.free_symbols
    return sum(atom * sympy.diff(log_ratio, atom) * _by(meanings[atom.name], side) for atom in atoms)


def _by(meaning: Any, side: str) -> Any:
    return sum(meaning.diff(symbol) for symbol in meaning.free_symbols if symbol.name == side)


def _positive_below(fraction: Any) -> str:
    """`1/(1 - w)` rather than `-1/(w - 1)`."""
    import sympy

    above, below = sympy.fraction(fraction)
    factors = []
    for factor in sympy.Mul.make_args(below):
        negative = factor.is_Add and factor.subs(dict.fromkeys(factor.free_symbols, sympy.Rational(1, 2))) < 0
        above, factor = (-above, -factor) if negative else (above, factor)
        factors.append(f"({factor})" if factor.is_Add else str(factor))
    top = f"({above})" if above.is_Add and below != 1 else str(above)
    if below == 1:
        return top
    return f"{top}/{factors[0]}" if len(factors) == 1 else f"{top}/({'*'.join(factors)})"


def measure(loss: Any, margins: list[float]) -> tuple[list[float], list[float], list[float]]:
    """The loss at each margin, the pull on the chosen and the push on the rejected log-probability, by autograd.

    Each margin is a batch of its own: some losses couple the pairs of a batch.
    """
    import torch

    from prefalign.losses import PairLogps, TokenLogps

    values, pulls, pushes = [], [], []
    tokens, start = (torch.tensor([number], dtype=torch.float64) for number in (TOKENS, START))
    for margin in margins:
        chosen, rejected = ((start + sign * margin / 2).requires_grad_() for sign in (1, -1))
        # Every token as likely as the others, log(sum of pi**2) as `derive` takes it, and no divergence.
        shares = torch.cat([chosen, rejected])[:, None].expand(2, int(TOKENS)) / TOKENS
        still = torch.full_like(shares, START / TOKENS)
        ones = torch.ones_like(shares)
        single = TokenLogps(shares, ones, still, -ones, torch.zeros_like(shares))
        value = loss(PairLogps(chosen, rejected, start, start, tokens, tokens, single=single)).sum()
        by_chosen, by_rejected = torch.autograd.grad(
            value, (chosen, rejected), allow_unused=True, materialize_grads=True
        )
        values.append(value.item())
        pulls.append(-by_chosen.item())
        pushes.append(by_rejected.item())
    return values, pulls, pushes


def _picture(title: str, margins: list[float], curves: tuple[list[float], ...]) -> str:
    """Two small diagrams in the colours of the page; one line of HTML, which Markdown leaves alone."""
    loss, pull, push = curves
    panels = _panel(0, "loss", margins, [(loss, "currentColor", "")])
    lines = [(pull, "#2a9d8f", ""), (push, "#e76f51", "5 3")]
    panels += _panel(330, "pull (green), push (red, dashed)", margins, lines)
    return (
        f'<div><svg viewBox="0 0 640 210" role="img" aria-label="Loss and gradient of {title.replace(chr(34), "")} '
        f'over the margin D" style="max-width:100%;font:11px sans-serif" fill="currentColor">{panels}</svg></div>'
    )


def _panel(left: int, title: str, margins: list[float], lines: list[tuple[list[float], str, str]]) -> str:
    low = min(min(line) for line, _, _ in lines)
    high = max(max(line) for line, _, _ in lines)
    low, high = (low, high) if high - low > 1e-12 else (low - 1, high + 1)

    def point(x: float, y: float) -> str:
        return f"{left + 50 + (x + 30) / 60 * 240:.1f},{175 - (y - low) / (high - low) * 145:.1f}"

    drawn = f'<text x="{left + 50}" y="16">{title}</text>'
    for y in (low, high):
        drawn += f'<text x="{left + 45}" y="{float(point(0, y).split(",")[1]) + 4}" text-anchor="end">{y:.3g}</text>'
    for x in (-30, 0, 30):
        drawn += f'<text x="{point(x, low).split(",")[0]}" y="192" text-anchor="middle">{x}</text>'
    drawn += f'<text x="{left + 170}" y="206" text-anchor="middle">D, nats</text>'
    axes = f"{point(-30, high)} {point(-30, low)} {point(30, low)}"
    drawn += f'<polyline points="{axes}" fill="none" stroke="currentColor" stroke-opacity=".4"/>'
    for line, colour, dashes in lines:
        points = " ".join(point(x, y) for x, y in zip(margins, line, strict=True))
        look = f'fill="none" stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dashes}"'
        drawn += f'<polyline points="{points}" {look}/>'
    return drawn
