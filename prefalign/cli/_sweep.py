"""`prefalign sweep --spec FILE --config FILE --out DIR`: train candidates and baselines alike, and compare them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from ..logic import Specification
    from ..sweep import Halving, Plan

# What decides the results, with its default; each may stand in the --plan file, and the command line wins.
_DEFAULTS: dict[str, Any] = {
    "spec": None,
    "config": None,
    "baselines": [],
    "top": 5,
    "by": "literals",
    "near": None,
    "seeds": [0, 1, 2],
    "sft": [0.0],
    "link": "logistic",
    "beta": None,
    "reference": True,
    "mean": True,
    "gold_samples": 0,
    "halving": 0,
    "first_rung": 0,
    "judge_by": "margin",
    "judge_baselines": False,
}
_METRICS = ("gold", "margin", "chosen", "rejected", "displacement")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.set_defaults(**dict.fromkeys(_DEFAULTS))
    what = parser.add_argument_group("what is trained")
    what.add_argument("--plan", metavar="FILE", help="YAML file with any of the options of this group")
    what.add_argument("--spec", help='candidates: text such as "between cpo and unCPO; monotone", or a .yaml file')
    what.add_argument("--config", metavar="FILE", help="what all runs share: a config file of `prefalign train`")
    what.add_argument("--baselines", nargs="+", metavar="LOSS", help="names, columns (ovxo) or loss expressions")
    what.add_argument("--top", type=int, metavar="N", help="how many candidates (default: 5)")
    what.add_argument("--by", metavar="KEYS", help="what candidates are ranked by, as in `prefalign generate`")
    what.add_argument("--near", metavar="LOSS", help="measure distances from this loss")
    what.add_argument("--seeds", type=int, nargs="+", metavar="N", help="(default: 0 1 2)")
    what.add_argument("--sft", type=float, nargs="+", metavar="WEIGHT", help="SFT weights; 0 is none (default: 0)")
    what.add_argument("--link", help="link of the structures (default: logistic)")
    what.add_argument("--beta", type=float, help="beta of the link (default: the link's own)")
    what.add_argument("--reference", action=argparse.BooleanOptionalAction, help="use reference forms (default: yes)")
    what.add_argument("--mean", action=argparse.BooleanOptionalAction, help="per-token means, not sums (default: yes)")
    what.add_argument(
        "--gold-samples", type=int, metavar="N", help="score N samples of each held-out prompt by VADER (default: 0)"
    )
    what.add_argument(
        "--judge-by", choices=_METRICS[1:], help="what the study compares, as a mean over seeds (default: margin)"
    )
    early = parser.add_argument_group("what is stopped early (also options of the plan)")
    early.add_argument("--halving", type=int, metavar="N", help="of the candidates at a rung, one in N goes on")
    early.add_argument(
        "--first-rung", type=int, metavar="STEP", help="rungs at STEP, STEP * N, … (default: the first that fits)"
    )
    early.add_argument("--judge-baselines", action=argparse.BooleanOptionalAction, help="baselines, too (default: no)")
    how = parser.add_argument_group("how")
    how.add_argument("--out", required=True, type=Path, metavar="DIR", help="the sweep's directory; alone: go on")
    how.add_argument(
        "--storage",
        metavar="WHERE",
        help="the study: sqlite (default), journal (a file that several machines may share), or a database's URL",
    )
    how.add_argument("--workers", type=int, default=1, metavar="N", help="losses at once on this machine (default: 1)")
    how.add_argument(
        "--stale-after", type=float, metavar="SECONDS", help="in a database: without a heartbeat, dead (default: 300)"
    )
    how.add_argument("--retry-failed", action="store_true", help="train once more what has failed")
    how.add_argument("--page-only", action="store_true", help="train nothing; write the page of what is there")
    how.add_argument("--sort-by", choices=_METRICS, help="order and colours (default: gold, else margin)")


def run(args: argparse.Namespace) -> int:
    """Train what is left, and write the page."""
    try:
        from ..sweep import open_queue, summary, work, write_page
    except ImportError as error:
        if error.name != "optuna":
            raise
        raise ConfigError("`prefalign sweep` needs Optuna: pip install 'prefalign[sweep]'.") from None

    given = {name: getattr(args, name) for name in _DEFAULTS if getattr(args, name) is not None}
    options = {**(_read_plan_file(args.plan) if args.plan else {}), **given}
    queue = open_queue(args.out, args.storage, args.stale_after, _make_plan(options) if options else None)
    plan = queue.plan
    if args.retry_failed:
        queue.retry_failed()
    if not args.page_only:
        runs = len(plan.arms) * len(plan.seeds)
        print(f"{len(plan.arms)} losses x {len(plan.seeds)} seeds = {runs} runs in {args.out}", flush=True)
        work(queue, workers=args.workers)
    page = write_page(queue, args.sort_by)
    print(summary(queue, args.sort_by))
    print(f"\nMeans over seeds [95 % intervals]; * orders the table. Page: {page}")
    return 0


def _read_plan_file(path: str) -> dict[str, Any]:
    from .._yaml import read_mapping

    content = read_mapping(path, "--plan", "The plan file")
    for name, value in content.items():
        if name not in _DEFAULTS:
            raise ConfigError(f"The plan file {path!r} has no option `{name}`.{did_you_mean(str(name), _DEFAULTS)}")
        default = _DEFAULTS[name]
        kinds = (int, float) if name == "beta" else str if default is None else type(default)
        if not isinstance(value, kinds) or (isinstance(value, bool) and default not in (True, False)):
            raise ConfigError(f"`{name}` in {path!r} is of the wrong kind (got {value!r}).")
    return content


def _make_plan(options: Mapping[str, Any]) -> Plan:
    from ..sweep import Plan, Recipe, check_base, check_halving, hash_data, make_arms, read_base

    chosen = {**_DEFAULTS, **options}
    if chosen["config"] is None:
        raise ConfigError("`--config` must be given: what all runs share, a config file of `prefalign train`.")
    _check(chosen, options)
    spec = _read_spec(chosen["spec"])
    recipe = Recipe(chosen["link"], chosen["beta"], chosen["reference"], chosen["mean"])
    arms = make_arms(
        spec,
        chosen["baselines"],
        top=chosen["top"],
        by=tuple(key.strip() for key in chosen["by"].split(",")),
        near=chosen["near"],
        sft=[float(weight) for weight in chosen["sft"]],
        recipe=recipe,
    )
    base = read_base(Path(chosen["config"]))
    text = "" if spec is None else str(spec)
    halving = _make_halving(chosen, base)
    seeds, samples = tuple(chosen["seeds"]), chosen["gold_samples"]
    plan = Plan(text, base, arms, seeds, samples, hash_data(base), halving, chosen["judge_by"])
    check_halving(plan)
    check_base(plan)
    return plan


def _make_halving(chosen: Mapping[str, Any], base: Mapping[str, Any]) -> Halving | None:
    from ..sweep import Halving

    factor, first = chosen["halving"], chosen["first_rung"]
    if not factor:
        return None
    if not first:
        steps, every = (base.get(name) for name in ("max_steps", "eval_steps"))
        if isinstance(steps, int) and isinstance(every, int):  # else `check_halving` says what is wrong
            parts = (steps // factor**power for power in range(1, max(2, steps.bit_length())))
            first = min((part for part in parts if part >= max(1, every)), default=0)
    return Halving(factor, first, chosen["judge_baselines"])


def _check(chosen: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for name in ("seeds", "sft"):
        values = chosen[name]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v < float("inf") for v in values)
        if not values or not numbers or len(set(values)) < len(values):
            raise ConfigError(f"`--{name}` must be different numbers >= 0, at least one (got {values!r}).")
    if any(not isinstance(seed, int) for seed in chosen["seeds"]):
        raise ConfigError(f"`--seeds` must be whole numbers (got {chosen['seeds']!r}).")
    if not all(isinstance(text, str) for text in chosen["baselines"]):
        raise ConfigError(f"`--baselines` must be texts (got {chosen['baselines']!r}).")
    if chosen["halving"] == 1 or chosen["halving"] < 0:
        raise ConfigError(f"`--halving` must be >= 2, or 0 for none (got {chosen['halving']}).")
    if chosen["judge_by"] not in _METRICS[1:]:
        raise ConfigError(f"`judge_by` must be one of {', '.join(_METRICS[1:])} (got {chosen['judge_by']!r}).")
    idle = next((name for name in ("first_rung", "judge_baselines") if name in given), None)
    if idle is not None and not chosen["halving"]:
        raise ConfigError(f"`--{idle.replace('_', '-')}` would have no effect without `--halving`. Leave it out.")
    for name, least in (("top", 1), ("gold_samples", 0), ("first_rung", 0)):
        if chosen[name] < least:
            raise ConfigError(f"`--{name.replace('_', '-')}` must be >= {least} (got {chosen[name]}).")
    if chosen["spec"] is None:
        idle = next((name for name in ("top", "by", "near") if name in given), None)
        if idle is not None:
            raise ConfigError(f"`--{idle}` would have no effect without `--spec`. Leave it out.")


def _read_spec(given: str | None) -> Specification | None:
    from ..logic import parse_spec, read_spec

    if given is None:
        return None
    return read_spec(given) if Path(given).suffix in (".yaml", ".yml", ".json") else parse_spec(given)
