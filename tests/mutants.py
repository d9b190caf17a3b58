"""Small changes to the package, each of which the fast tests must notice: python tests/mutants.py

A change is made to a copy of the package in a temporary folder, and the fast tests of the files named beside it are run
there. Results are kept in `runs/mutants.json` until the changed file or one of these tests changes, so that a run which
was stopped goes on. The exit status is 1 where less than 95 % are noticed, where the tests fail without any change, or
where the text that a change replaces is not there exactly once.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "runs" / "mutants.json"
LEAST = 0.95
SECONDS = 240  # a change that makes a loop endless is noticed, too
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "runs", "site", "build", "dist", "*.egg-info")


@dataclass(frozen=True)
class Mutant:
    """One change.

    Args:
        name: What goes wrong, in words joined by hyphens.
        file: Within `prefalign`.
        before: The text that is replaced; it stands in the file once.
        after: What takes its place.
        tests: The test files or folders that should notice, within `tests`.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


# (file, the tests that should notice) -> name -> (before, after)
_TABLE: dict[tuple[str, str], dict[str, tuple[str, str]]] = {
    # ------------------------------------------------------------------------------------------------------ losses
    ("losses/pairwise/_margin.py", "losses"): {
        "dpo-swaps-chosen-and-rejected": (
            "return -functional.logsigmoid(self.beta * (chosen - rejected))",
            "return -functional.logsigmoid(self.beta * (rejected - chosen))",
        ),
        "ipo-target-without-its-two": ("rejected - 1 / (2 * self.beta)) ** 2", "rejected - 1 / self.beta) ** 2"),
        "slic-rewards-the-rejected": ("relu(1 - self.beta", "relu(1 + self.beta"),
        "dpop-punishes-a-gain": ("torch.relu(-chosen)", "torch.relu(chosen)"),
        "exo-smoothing-of-wrong-sign": ("math.log1p(-self.label_smoothing)", "math.log1p(self.label_smoothing)"),
        "discopop-blend-turned-round": ("torch.sigmoid(-scaled)", "torch.sigmoid(scaled)"),
    },
    ("losses/pairwise/_pointwise.py", "losses"): {
        "nca-forgets-a-half": ("- 0.5 * functional.logsigmoid(-lost)", "- functional.logsigmoid(-lost)"),
        "bco-does-not-shift-the-rejected": ("self.beta * rejected - self.shift", "self.beta * rejected"),
        "sppo-both-towards-one-half": ("+ (rejected + 0.5 / self.beta) ** 2", "+ (rejected - 0.5 / self.beta) ** 2"),
    },
    ("losses/pairwise/_reference_free.py", "losses"): {
        "simpo-margin-scaled-by-beta": ("self.gamma / self.beta))", "self.gamma))"),
        "cpo-drops-its-likelihood": ("if self.alpha else (preference,)", "if not self.alpha else (preference,)"),
    },
    ("losses/pairwise/_robust.py", "losses"): {
        "dr-dpo-sum-instead-of-mean": (" - math.log(len(pair_logps))", ""),
        "holder-power-off-by-one": ("torch.exp((1 + self.gamma) * log_p)", "torch.exp(self.gamma * log_p)"),
    },
    ("losses/pairwise/_distributional.py", "losses"): {
        "aot-leaves-one-side-unsorted": ("torch.sort(lower, dim=0).values", "lower"),
    },
    ("losses/pairwise/_modulated.py", "losses"): {
        "the-beta-of-a-batch-is-trained": ("margin.detach().mean()", "margin.mean()"),
    },
    ("losses/pairwise/_seppo.py", "losses train/generation/test_seppo.py"): {
        "seppo-gate-turned-round": ("anchor >= 0, rejected", "anchor < 0, rejected"),
    },
    ("losses/pairwise/_rpo.py", "losses"): {
        "rpo-weight-without-beta": ("(eta * self.beta, SFT", "(eta, SFT"),
    },
    ("losses/pairwise/_sft.py", "losses"): {
        "sft-mean-of-means": (
            "(-(pair_logps.chosen.sum() / tokens.sum()))",
            "(-(pair_logps.chosen / tokens).mean())",
        ),
    },
    ("losses/_wrappers.py", "losses"): {
        "robust-divides-by-one-rate": ("/ (1 - 2 * self.rate)", "/ (1 - self.rate)"),
        "smoothed-subtracts-the-swap": (
            "return clean + self.rate * self.loss(pair_logps.swapped())",
            "return clean - self.rate * self.loss(pair_logps.swapped())",
        ),
    },
    ("losses/_numerics.py", "losses"): {
        "log1mexp-branches-exchanged": ("near = log_p > -math.log(2.0)", "near = log_p < -math.log(2.0)"),
        "log1mexp-infinite-at-zero": (".clamp(max=MAX_LOG_P)", ".clamp(max=0.0)"),
    },
    ("losses/_pairs.py", "losses"): {
        "swapped-pairs-keep-their-reference": (
            "ref_chosen=self.ref_rejected,\n            ref_rejected=self.ref_chosen,",
            "ref_chosen=self.ref_chosen,\n            ref_rejected=self.ref_rejected,",
        ),
        "mean-over-the-other-answers-tokens": (
            "return chosen / chosen_tokens, rejected / rejected_tokens",
            "return chosen / rejected_tokens, rejected / chosen_tokens",
        ),
        "empty-completion-divides-by-zero": (
            "return self.chosen_tokens.clamp(min=1.0), self.rejected_tokens.clamp(min=1.0)",
            "return self.chosen_tokens, self.rejected_tokens",
        ),
    },
    ("losses/_loss.py", "losses"): {
        "a-beta-of-zero-is-taken": ('ends="[)" if closed else "()"', 'ends="[)"'),
        "sums-forget-their-weights": ("total = total + weight * term(pair_logps)", "total = total + term(pair_logps)"),
    },
    ("losses/_schedule.py", "losses"): {
        "cosine-runs-backwards": ("(1 + math.cos(math.pi * done))", "(1 - math.cos(math.pi * done))"),
        "the-last-step-is-never-reached": ("min(1.0, step / (steps - 1))", "min(1.0, step / steps)"),
    },
    # ------------------------------------------------------------------------------------------------------- logic
    ("logic/entailment/_order.py", "logic"): {
        "entailment-forgets-the-bottom": (
            "return not (a.top_mask & ~b.top_mask or b.bottom_mask & ~a.bottom_mask)",
            "return not a.top_mask & ~b.top_mask",
        ),
        "meet-keeps-common-bottoms-only": (
            "left.top_mask & right.top_mask, left.bottom_mask | right.bottom_mask",
            "left.top_mask & right.top_mask, left.bottom_mask & right.bottom_mask",
        ),
    },
    ("logic/entailment/_dominance.py", "logic"): {
        "dominance-the-other-way-round": (
            "multiply(top_b, bottom_a) - multiply(top_a, bottom_b)",
            "multiply(top_a, bottom_b) - multiply(top_b, bottom_a)",
        ),
    },
    ("logic/entailment/_lattice.py", "logic"): {
        "lattice-keeps-implied-edges": ("if high in above and high not in farther", "if high in above"),
        "rank-is-the-last-chain": ("max(ranks[high], ranks[low] + 1)", "ranks[low] + 1"),
    },
    ("logic/tables/_minimise.py", "logic"): {
        "fewest-terms-before-fewest-literals": ("(size[0] + len(cube), size[1] + 1)", "(size[0] + 1, size[1] + 1)"),
        "cover-keeps-what-another-covers": ("cover(low_true & ~up_false,", "cover(low_true,"),
    },
    ("logic/polynomials/_cube.py", "logic"): {
        "derivative-loses-its-powers": ("np.arange(1, order).astype", "np.ones(order - 1).astype"),
        "count-of-the-false-rows": ("[false, true - false]", "[true, false - true]"),
    },
    ("logic/equations/_corners.py", "logic"): {
        "a-square-passes-for-a-count": ("degree > 1 for degree", "degree > 2 for degree"),
    },
    ("logic/equations/_ratio.py", "logic"): {
        "a-constant-below-counts-above": ("margin += nats if side == 0 else -nats", "margin += nats"),
        "beta-stays-in-the-margin": ('margin = sympy.expand(margin / sympy.Symbol("beta"))', "pass"),
    },
    ("logic/analysis/_limits.py", "logic"): {
        "equal-degrees-saturate": ("if low_top < low_bottom:\n", "if low_top <= low_bottom:\n"),
        "limit-turned-round": ('"infinity" if low_top < low_bottom', '"infinity" if low_top > low_bottom'),
    },
    ("logic/analysis/_behaviour.py", "logic"): {
        "bounded-above-and-below-exchanged": (
            "return not self.structure.bottom_mask & ~self.structure.top_mask",
            "return not self.structure.top_mask & ~self.structure.bottom_mask",
        ),
    },
    ("logic/generation/_rank.py", "logic"): {
        "distance-forgets-the-bottom": (" + (structure.bottom_mask ^ bottom).bit_count()", ""),
    },
    ("logic/generation/sets/_regions.py", "logic"): {
        "count-of-three-labels-off": ("3**three << (two + 2 * four)", "3**three << (two + four)"),
        "monotone-both-in-one-direction": (
            "_falls(bottom, atom, -direction, self.atoms)",
            "_falls(bottom, atom, direction, self.atoms)",
        ),
    },
    ("logic/generation/sets/_ratios.py", "logic"): {
        "no-bottom-is-one-ratio": ("np.where(tops == 0, -2, -1)", "-1"),
    },
    ("logic/structures/_structure.py", "logic"): {
        "rows-on-both-sides-are-not-free": (
            "free = full_mask(len(self.atoms)) ^ self.top_mask ^ self.bottom_mask",
            "free = full_mask(len(self.atoms)) ^ (self.top_mask | self.bottom_mask)",
        ),
    },
    ("logic/structures/_kwise.py", "logic"): {
        "at-most-one-fewer": ("for chosen in combinations(answers, m + 1)]", "for chosen in combinations(answers, m)]"),
    },
    # ---------------------------------------------------------------------------------------------------- compiler
    ("compiler/_derive.py", "compiler"): {
        "hyperparameters-never-moved": ("{key: value * 0.83 for", "{key: value for"),
    },
    ("compiler/tracing/_elementwise.py", "compiler"): {
        "alpha-of-sub-dropped": (
            "b if isinstance(alpha, int) and alpha == 1 else elementwise(_mul, b, alpha)",
            "b",
        ),
        "rsub-is-sub": ('_binary(lambda a, b: b - a, "rsub"', '_binary(lambda a, b: a - b, "rsub"'),
        "softplus-not-divided-by-beta": ("-sy.LogSigmoid(-b * x) / b, x, beta", "-sy.LogSigmoid(-b * x), x, beta"),
        "lerp-from-the-other-end": ("x + t * (y - x)", "y + t * (x - y)"),
        "detach-dropped": ("(lambda x: freeze(x))", "(lambda x: x)"),
        "minimum-is-maximum": ("return sy.Select(a - b, b, a)", "return sy.Select(a - b, a, b)"),
        "a-floor-of-two-tokens-is-a-guard": ("and lower <= 1)", "and lower <= 2)"),
    },
    ("compiler/tracing/_losses.py", "compiler"): {
        "cross-entropy-with-labels-exchanged": (
            "-t * sy.LogSigmoid(e) - (1 - t) * sy.LogSigmoid(-e)",
            "-(1 - t) * sy.LogSigmoid(e) - t * sy.LogSigmoid(-e)",
        ),
        "huber-not-continuous": ("width * (size - width / 2)", "width * size"),
        "smoothing-not-shared-out": ("smooth * sp.Add(*row) / len(row)", "smooth * sp.Add(*row)"),
    },
    ("compiler/reading/_check.py", "compiler"): {
        "check-of-gradients-skipped": (
            "    if not theirs.requires_grad:\n        return True\n    leaves",
            "    return True\n    leaves",
        ),
        "check-takes-a-tenth-off": ("_RTOL = 2e-5", "_RTOL = 2e-1"),
        "chance-is-asked-but-once-more": ("for _ in range(8))", "for _ in range(2))"),
        "chance-is-not-told": ("if any(not torch.equal(first, other) for other in others):", "if False:"),
    },
    ("compiler/symbols/_numeric.py", "compiler"): {
        "frozen-values-have-gradients": ("values[sy.thaw(e).name].detach()", "values[sy.thaw(e).name]"),
    },
    ("compiler/lowering/_program.py", "compiler"): {
        "reference-of-the-chosen-added-twice": (
            'total.get(("p", "rw"), 0) - 1',
            'total.get(("p", "rw"), 0) + 1',
        ),
        "a-sum-of-the-wrong-literal": (
            'left = _chain(_plus(_minus(yes, shared), ("p", atom)))',
            'left = _chain(_plus(_minus(yes, shared), ("1-p", atom)))',
        ),
    },
    ("compiler/lowering/_tape.py", "compiler"): {
        "impossible-answers-give-nan": ("x.clamp(min=FLOOR) for x in registers", "x for x in registers"),
    },
    ("compiler/lowering/_summed.py", "compiler"): {
        "one-invalid-answer-decides": (
            "any(all(row >> (count - 1 - place) & 1 for place in decisive) for row in rows)",
            "any(any(row >> (count - 1 - place) & 1 for place in decisive) for row in rows)",
        ),
    },
    ("compiler/_to_loss.py", "compiler"): {
        "mean-where-sums-would-do": (
            'mean = summed_behaviour(small) != "contrast"',
            'mean = summed_behaviour(small) == "contrast"',
        ),
    },
    ("compiler/lowering/_links.py", "compiler"): {
        "hinge-of-margin-one": ("(beta - rho).relu()", "(1 - rho).relu()"),
    },
    # -------------------------------------------------------------------------------------------------- references
    ("references/moving/_averages.py", "references/test_references.py train/test_references.py"): {
        "average-keeps-the-wrong-share": (".mul_(1.0 - self.alpha)", ".mul_(self.alpha)"),
        "average-a-step-early": ("if step % self.every:", "if (step + 1) % self.every:"),
        "bema-a-step-younger": ("(self.lag + step) ** -power", "(self.lag + step - 1) ** -power"),
        "bema-corrects-the-other-way": ("correction * (policy - start)", "correction * (start - policy)"),
    },
    ("references/moving/_weights.py", "references/test_references.py references/moving"): {
        "fan-in-of-conv1d-ignored": ("added.T if stored_transposed else added", "added"),
        "an-adapter-trained-further-counts-twice": (
            'product - self._product(name, "ref") if self._has_ref else product',
            "product",
        ),
        "masters-of-16-bits-not-published": (
            "self._reference[name].detach().copy_(self._masters[name])",
            "pass",
        ),
        "masters-in-16-bits": (
            "name: parameter.detach().float() for name, parameter in theirs",
            "name: parameter.detach().clone() for name, parameter in theirs",
        ),
    },
    ("references/soups/_methods.py", "references/soups"): {
        "learned-soup-keeps-its-last-step": (
            "if loss < best:\n            best, chosen = loss, tuple",
            "if True:\n            best, chosen = loss, tuple",
        ),
        "greedy-takes-everything": (
            "if loss < best:\n                kept, best",
            "if True:\n                kept, best",
        ),
        "slerp-turned-round": ("math.sin(weight * angle) / math", "math.sin((1 - weight) * angle) / math"),
    },
    ("references/soups/_held_out.py", "references/soups"): {
        "end-of-text-twice": ('("" if scored.endswith(eos) else eos)', "eos"),
        "prompts-are-scored": ("        start = next((i for i", "        next((i for i"),
    },
    ("references/soups/_recipe.py", "references/soups"): {
        "weights-need-not-sum-to-one": ("if abs(total - 1) > 1e-6:", "if abs(total - 1) > 1:"),
    },
    ("references/weights/_weighted_sum.py", "references/weights references/soups"): {
        "buffers-are-averaged": (" or _BUFFERS.search(name):", ":"),
        "nan-goes-into-a-soup": ("and bool(total.isnan().any()):", "and False:"),
    },
    ("references/weights/_lora.py", "references/weights"): {
        "rslora-scaled-as-lora": ('(math.sqrt(rank) if self.config.get("use_rslora") else rank)', "rank"),
        "summed-adapter-has-another-scale": ('"lora_alpha": usual,', '"lora_alpha": 1,'),
    },
    ("references/past/_snapshots.py", "references/past"): {
        "a-damaged-snapshot-is-loaded": ("if _digest(path) != self.sha256(step):", "if False:"),
    },
    ("references/past/_checkpoints.py", "references/past"): {
        "one-snapshot-more-is-kept": ("(self.keep if self.choose", "(self.keep + 1 if self.choose"),
        "next-change-a-round-late": ("(step // self.every + 1) * self.every", "(step // self.every + 2) * self.every"),
    },
    ("references/past/_own_past.py", "references/past train/generation/test_seppo.py train/generation/test_ditto.py"): {
        "the-drawn-snapshot-is-not-put-back": (
            "        finally:\n            self._load(drawn)",
            "        finally:\n            pass",
        ),
    },
    ("references/fixed/_key.py", "train/cache"): {
        "two-references-share-a-key": ('"use_cache"),', '"use_cache", "rms_norm_eps"),'),
    },
    ("references/cache/_store.py", "train/cache"): {
        "a-row-is-found-by-half-its-key": (" and shard.keys[number].tobytes() == key:", ":"),
    },
    # -------------------------------------------------------------------------------------------------------- data
    ("data/checking/_tokens.py", "data/checking"): {
        "doubled-eos-looked-for-in-the-prompt": ("_has_twice(ids, eos, start)", "_has_twice(ids, eos, 0)"),
        "a-prompt-of-the-limit-is-kept": (
            '"keep_start" and start >= self._limit:',
            '"keep_start" and start > self._limit:',
        ),
        "the-end-is-cut-where-it-is-kept": ("else slice(-self._limit, None)", "else slice(None, self._limit)"),
    },
    ("data/checking/_text.py", "data/checking"): {
        "the-space-stays-in-the-prompt": ('elif chosen[index - 1] == " ":', "elif False:"),
    },
    ("data/checking/_repeats.py", "data/checking"): {
        "labels-compared-in-overlapping-pairs": ("(place % 2 == 0) & ", ""),
        "copies-are-contradictions": ("both = (ones > 0) & (ones < sizes)", "both = ones < sizes"),
    },
    ("data/checking/_agreement.py", "diagnose/test_flip_rate.py data/checking"): {
        "wilsons-interval-of-one-sigma": ("agreeing / compared, 1.96", "agreeing / compared, 1.0"),
        "random-labels-have-a-rate": ("if self.high >= HIGHEST_RATE:", "if self.rate >= HIGHEST_RATE:"),
    },
    ("data/checking/_check.py", "data/checking"): {
        "chosen-longer-counts-ties": (
            'lengths["chosen"] > lengths["rejected"]',
            'lengths["chosen"] >= lengths["rejected"]',
        ),
        "a-report-on-other-data-is-used": ('"select") or len(dataset) != report.rows:', '"select"):'),
    },
    ("data/_noise.py", "data/test_noise.py"): {
        "flips-rounded-down": ("[: round(rate * rows)]", "[: int(rate * rows)]"),
        "a-second-flip-is-forgotten": ("bool(old) ^ turn for", "turn for"),
    },
    ("data/budget/_bins.py", "data/budget train/batches"): {
        "a-bin-one-pair-too-full": ("(len(bins[-1]) + 1) > budget", "len(bins[-1]) > budget"),
    },
    ("data/budget/_sizes.py", "data/budget"): {
        "the-first-token-is-predicted": ("[keep][1:] >= prompt", "[keep] >= prompt"),
    },
    # ------------------------------------------------------------------------------------------------------- train
    ("train/checkpoints/_whole.py", "train/checkpoints"): {
        "checkpoints-in-the-order-of-their-names": (
            'key=lambda path: int(path.name.partition("-")[2])',
            "key=lambda path: path.name",
        ),
        "the-mark-of-an-unfinished-checkpoint-ignored": (
            "    found = [path for path in found if not (path / UNFINISHED).exists()]\n",
            "",
        ),
    },
    ("train/metrics/_changes.py", "train/metrics"): {
        "the-end-token-counts": ("cumsum(1).flip(1) > 1)", "cumsum(1).flip(1) > 0)"),
        "divergence-of-wrong-sign": ("(log_ratio.expm1() - log_ratio)", "(log_ratio.expm1() + log_ratio)"),
        "displacement-of-the-rejected": ("(change[:, 0] < 0)", "(change[:, 1] < 0)"),
    },
    ("train/metrics/_means.py", "train/metrics train/batches"): {
        "means-divided-by-their-number": (" / sum(weights)\n", " / len(weights)\n"),
    },
    ("train/metrics/_statistics.py", "train/metrics"): {
        "logs-a-step-late": ("step = state.global_step + 1", "step = state.global_step"),
        "a-tie-is-accurate": ("(rewards[0] > rewards[1]).float()", "(rewards[0] >= rewards[1]).float()"),
    },
    ("train/batches/_weights.py", "train/batches"): {
        "weighted-by-the-sum-of-weights": (
            "return (value * torch.tensor(weights, dtype=value.dtype, device=value.device)).mean()",
            "return (value * torch.tensor(weights, dtype=value.dtype)).sum() / sum(weights)",
        ),
    },
    ("train/batches/_by_tokens.py", "train/batches"): {
        "micro-batches-count-alike": ("len(pairs) / len(costs), number", "1 / len(bins), number"),
    },
    ("train/batches/_join.py", "train/batches"): {
        "rows-cut-below-the-multiple": ("-(-longest // multiple) * multiple", "longest // multiple * multiple"),
        "padding-counts-as-shared": ("(chosen == rejected) & of_chosen & of_rejected", "chosen == rejected"),
    },
    ("train/forward/_head.py", "train/forward/test_head.py"): {
        "gradient-of-the-entropy": ("(log_p + entropy[block, None])", "(log_p - entropy[block, None])"),
        "gradient-without-the-softcap": (
            "if softcap is not None:\n            gradient.mul_",
            "if False:\n            gradient.mul_",
        ),
        "equal-logits-are-all-first": ("first[first.clone()] = z[first].argmax(1) == target[first]", "pass"),
    },
    ("train/forward/_plan.py", "train/forward/test_shared_prefix.py"): {
        "positions-start-again-after-the-prefix": (
            "torch.arange(common, rejected)]\n        place",
            "torch.arange(rejected - common)]\n        place",
        ),
    },
    ("train/forward/_shared_prefix.py", "train/forward"): {
        "not-a-number-passes-the-self-check": ("if not gap <= tolerance:", "if gap > tolerance:"),
    },
    ("train/_callback.py", "train/test_references.py train/checkpoints"): {
        "resumed-with-another-loss": ("if before is not None and before != now:", "if False:"),
    },
    ("train/config/_needs.py", "train/config"): {
        "one-token-without-an-embedding": ("if number >= rows:", "if number > rows:"),
    },
    ("train/config/_objective.py", "train/config train/test_references.py"): {
        "reference-of-a-moving-run-precomputed": (
            "if args.precompute_ref_log_probs and not reference.fixed:",
            "if False:",
        ),
        "terms-that-cancel-are-trained": ("if any(weights.values()):", "if True:"),
    },
    ("train/setup/_flip_rate.py", "diagnose/test_flip_rate_estimate.py"): {
        "the-interval-for-the-rate": (
            "with_flip_rate(objective.loss, round(rate, 4))",
            "with_flip_rate(objective.loss, round(low, 4))",
        ),
    },
    # -------------------------------------------------------------------------------------------- diagnose and sweep
    ("diagnose/_flip_rate.py", "diagnose/test_flip_rate.py"): {
        "moments-interval-of-one-sigma": (
            "holder_low=_clip(holder - 1.96 * error),\n        holder_high=_clip(holder + 1.96 * error),",
            "holder_low=_clip(holder - error),\n        holder_high=_clip(holder + error),",
        ),
        "can-tell-without-standard-errors": ("0.5 + 3.0 * math.sqrt(0.25 / self.pairs)", "0.5"),
        "unsure-margins-can-tell": (" and self.sure >= _LEAST_SURE", ""),
        "suspicion-of-the-clean": ("rate * (1.0 - sigmoid(calibrated))", "rate * sigmoid(calibrated)"),
    },
    ("diagnose/_mixture.py", "diagnose/test_flip_rate.py"): {
        "likelihood-interval-of-one-sigma": ("_DROP = 1.9207", "_DROP = 0.5"),
        "copies-vouch-for-each-other": ("np.round(np.abs(differences), 3)", "np.arange(len(differences))"),
    },
    ("diagnose/_interval.py", "diagnose/test_interval.py"): {
        "bootstrap-of-twice-the-tail": ("[(1 - level) / 2, (1 + level) / 2]", "[1 - level, level]"),
    },
    ("diagnose/_verdict.py", "diagnose/test_report.py diagnose/test_over_optimisation.py"): {
        "a-rise-within-its-noise-is-good": (
            '    if change.low > 0:\n        return Remark("good"',
            '    if change.mean > 0:\n        return Remark("good"',
        ),
    },
    ("sweep/_plan.py", "sweep"): {
        "hash-of-the-data-constant": ("hashlib.sha256(Path(name).read_bytes()).hexdigest()", '"0"'),
        "losses-stopped-at-the-end": ("if rung < steps}", "if rung <= steps}"),
    },
}
MUTANTS = tuple(
    Mutant(name, file, before, after, tuple(f"tests/{test}" for test in tests.split()))
    for (file, tests), changes in _TABLE.items()
    for name, (before, after) in changes.items()
)


def main(words: list[str] | None = None) -> int:
    """Run the mutants that are asked for, print what was noticed, and give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", nargs="+", help="run these again; default: all that are not known")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    args = parser.parse_args(words)
    if args.list:
        print("\n".join(mutant.name for mutant in MUTANTS))
        return 0
    faults = check_table(MUTANTS)
    asked = [mutant for mutant in MUTANTS if args.only is None or mutant.name in args.only]
    faults += [f"{name}: no such mutant" for name in args.only or () if name not in {m.name for m in MUTANTS}]
    if faults:
        print("\n".join(faults))
        return 1
    kept = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    with tempfile.TemporaryDirectory(prefix="prefalign-mutants-") as scratch:
        copy = Path(scratch) / "copy"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=_NOT_COPIED)
        for mutant in asked:
            if not _passes(mutant.tests, copy, kept):
                print(f"{' '.join(mutant.tests)}: fails without any change, so that what it notices says nothing.")
                return 1
            key = _key(mutant.tests, mutant.file, mutant.before, mutant.after)
            known = kept.get(mutant.name, {})
            if known.get("key") != key or args.only is not None:
                known = {"key": key, **try_one(mutant, copy)}
                _keep(kept, mutant.name, known)
            print(f"{'noticed' if known['noticed'] else 'MISSED '}  {mutant.name:<52} {known['by']}", flush=True)
    noticed = sum(kept[mutant.name]["noticed"] for mutant in asked)
    print(f"{noticed} of {len(asked)} changes noticed ({noticed / len(asked):.1%}).")
    return 0 if noticed >= LEAST * len(asked) else 1


def check_table(mutants: tuple[Mutant, ...]) -> list[str]:
    """What is wrong with the table itself, a line each."""
    faults = []
    names = [mutant.name for mutant in mutants]
    for mutant in mutants:
        file = ROOT / "prefalign" / mutant.file
        found = file.read_text("utf-8").count(mutant.before) if file.is_file() else 0
        if found != 1:
            faults.append(f"{mutant.name}: its text stands {found} times in prefalign/{mutant.file}, not once")
        faults += [f"{mutant.name}: there is no {test}" for test in mutant.tests if not (ROOT / test).exists()]
        if names.count(mutant.name) > 1:
            faults.append(f"{mutant.name}: two have this name")
    return faults


def try_one(mutant: Mutant, copy: Path) -> dict[str, object]:
    """Whether the tests notice a change, and by which test, or how."""
    file = copy / "prefalign" / mutant.file
    text = file.read_text("utf-8")
    file.write_text(text.replace(mutant.before, mutant.after), "utf-8")
    try:
        status, said = _run(mutant.tests, copy)
    finally:
        file.write_text(text, "utf-8")
    if status not in (0, 1, None):
        return {"noticed": True, "by": f"it does not run (pytest gives {status})"}
    return {"noticed": status != 0, "by": "endless" if status is None else said}


def _run(tests: tuple[str, ...], copy: Path) -> tuple[int | None, str]:
    """Pytest's exit status, None if it was too slow, and the first test that failed."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", "--tb=no", *tests]
    try:
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return None, ""
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, failed[0].partition(" - ")[0].partition("tests/")[2] if failed else ""


def _passes(tests: tuple[str, ...], copy: Path, kept: dict[str, dict[str, object]]) -> bool:
    """Whether tests pass on the copy as it is; asked once for each state of the package and of these tests."""
    name, key = f"unchanged: {' '.join(tests)}", _key((*tests, "prefalign"))
    if kept.get(name, {}).get("key") != key:
        status, said = _run(tests, copy)
        _keep(kept, name, {"key": key, "passed": status == 0, "by": said})
    return bool(kept[name]["passed"])


def _key(paths: tuple[str, ...], file: str = "", *more: str) -> str:
    """A hash of everything that a result depends on."""
    digest = hashlib.sha256(json.dumps(more).encode())
    for path in (*paths, *([f"prefalign/{file}"] if file else [])):
        here = ROOT / path
        for each in sorted(here.rglob("*.py")) if here.is_dir() else [here]:
            digest.update(each.read_bytes())
    return digest.hexdigest()


def _keep(kept: dict[str, dict[str, object]], name: str, result: dict[str, object]) -> None:
    kept[name] = result
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    KEPT.write_text(json.dumps(kept, indent=1), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
