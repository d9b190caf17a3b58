"""The public losses that the compiler is held against: how each one's real code is called, and what must come out.

`PUBLIC` lists them in the order of the table in docs/loss-table.md, which `python -m tests.compiler.loss_table` writes.
TRL's trainers read `self`, so a stub carries their configuration, and a stand-in model returns the log-probabilities of
the tokens; the code that computes the loss is theirs, unmodified.
"""

from __future__ import annotations

import importlib.util
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

import prefalign.losses as pl
from prefalign.compiler import Tokens


@dataclass(frozen=True)
class Public:
    """A public loss: where it is, its code, and its arguments.

    Args:
        refused: A part of the reason for which it has no reading; empty where it has one.
        log_ratio: Whether it is a function of log ratios of weighted model counts at all.
    """

    library: str
    name: str
    function: Callable[..., Any]
    given: dict[str, Any] = field(default_factory=dict)
    refused: str = ""
    log_ratio: bool = True


class _Accelerator:
    device = torch.device("cpu")

    def gather_for_metrics(self, value: Any) -> Any:
        return value

    gather = gather_for_metrics

    def autocast(self) -> Any:
        return nullcontext()

    def unwrap_model(self, model: Any) -> Any:
        return model


def _stub(**settings: Any) -> SimpleNamespace:
    common = {
        "accelerator": _Accelerator(),
        "_metrics": {"train": defaultdict(list), "eval": defaultdict(list)},
        "_total_train_tokens": 0,
        "_tp_size": 1,
        "aux_loss_enabled": False,
        "model": SimpleNamespace(training=False),
        "args": SimpleNamespace(discopop_tau=0.05, gradient_checkpointing_kwargs=None, gradient_checkpointing=False),
    }
    return SimpleNamespace(**(common | settings))


def _outputs(batch: Tokens) -> Callable[..., Any]:
    """A model: what its forward returns for the batch."""
    zeros = torch.zeros(batch.mask.shape)
    made = SimpleNamespace(
        log_probs=batch.log_probs,
        entropy=zeros,
        mean_logits=zeros,
        is_top1=zeros.bool(),
        log_sum_sq_probs=zeros - 1.0,
    )
    return lambda **_: made


def dpo_trainer(batch: Tokens, stub: Any) -> Any:
    """TRL's DPOTrainer._compute_loss."""
    from trl import DPOTrainer

    mask = torch.cat([torch.zeros(len(batch.mask), 1, dtype=torch.long), batch.mask], 1)
    inputs = {
        "input_ids": torch.ones_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": batch.ref_sums[0],
        "ref_rejected_logps": batch.ref_sums[1],
    }
    return DPOTrainer._compute_loss(stub, _outputs(batch), inputs, False)


def _dpo_stub(loss_type: str, **settings: Any) -> SimpleNamespace:
    defaults = {
        "beta": 0.1,
        "label_smoothing": 0.1,
        "loss_types": [loss_type],
        "loss_weights": [1.0],
        "f_divergence_type": "reverse_kl",
        "f_alpha_divergence_coef": 0.5,
        "use_weighting": False,
        "ld_alpha": None,
        "precompute_ref_logps": True,
        "ref_model": None,
    }
    return _stub(**(defaults | settings))


def kto_trainer(batch: Tokens, stub: Any) -> Any:
    """TRL's KTOTrainer._compute_loss, on as many desirable as undesirable completions."""
    from trl import KTOTrainer

    pairs = len(batch.mask) // 2
    mask = torch.cat([torch.zeros(2 * pairs, 1, dtype=torch.long), batch.mask], 1)
    inputs = {
        "input_ids": torch.ones_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "label": torch.tensor([True] * pairs + [False] * pairs),
        "ref_logps": torch.cat(batch.ref_sums),
        "ref_KL_logps": torch.zeros(2 * pairs),
    }
    stub._compute_kl_logps = lambda model, batch: torch.zeros(2 * pairs) + stub.kl
    return KTOTrainer._compute_loss(stub, _outputs(batch), inputs, False)


def cpo_trainer(policy_chosen_logps: Any, policy_rejected_logps: Any, chosen_tokens: Any, stub: Any) -> Any:
    """trl.experimental's CPOTrainer.get_batch_loss_metrics around its cpo_loss; the log-probabilities are sums."""
    from trl.experimental.cpo import CPOTrainer

    logits = torch.zeros(1)
    nll = -(policy_chosen_logps / chosen_tokens).mean()
    stub.concatenated_forward = lambda model, batch: (policy_chosen_logps, policy_rejected_logps, logits, logits, nll)
    stub.cpo_loss = lambda *logps: CPOTrainer.cpo_loss(stub, *logps)
    return CPOTrainer.get_batch_loss_metrics(stub, None, {})


def orpo_trainer(chosen_logps: Any, rejected_logps: Any, chosen_tokens: Any, rejected_tokens: Any, stub: Any) -> Any:
    """trl.experimental's ORPOTrainer.get_batch_loss_metrics around its odds_ratio_loss; means over tokens."""
    from trl.experimental.orpo import ORPOTrainer

    chosen, rejected, logits = chosen_logps / chosen_tokens, rejected_logps / rejected_tokens, torch.zeros(1)
    stub.concatenated_forward = lambda model, batch: (chosen, rejected, logits, logits, -chosen.mean())
    stub.odds_ratio_loss = lambda *logps: ORPOTrainer.odds_ratio_loss(stub, *logps)
    return ORPOTrainer.get_batch_loss_metrics(stub, None, {})


def _cpo_stub(loss_type: str, **settings: Any) -> SimpleNamespace:
    defaults = {"beta": 0.1, "alpha": 0.0, "loss_type": loss_type, "simpo_gamma": 0.5, "label_smoothing": 0.0}
    return _stub(**(defaults | {"cpo_alpha": 1.0} | settings))


def _trl() -> Iterator[Public]:
    sort = "batch"
    for name in (
        *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard"),
        *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
    ):
        yield Public("trl DPOTrainer", name, dpo_trainer, {"stub": _dpo_stub(name)})
    for name in ("aot", "aot_unpaired"):
        yield Public("trl DPOTrainer", name, dpo_trainer, {"stub": _dpo_stub(name)}, sort, log_ratio=False)
    both = {"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}
    yield Public("trl DPOTrainer", "sigmoid + sft", dpo_trainer, {"stub": _dpo_stub("", **both)})
    wpo = {"stub": _dpo_stub("sigmoid", use_weighting=True)}
    yield Public("trl DPOTrainer", "sigmoid, use_weighting", dpo_trainer, wpo)
    ld = {"stub": _dpo_stub("sigmoid", ld_alpha=0.5)}
    yield Public("trl DPOTrainer", "sigmoid, ld_alpha", dpo_trainer, ld, "spreads over its tokens", log_ratio=False)
    for divergence in ("forward_kl", "js_divergence", "alpha_divergence"):
        given = {"stub": _dpo_stub("sigmoid", f_divergence_type=divergence)}
        yield Public("trl DPOTrainer", f"sigmoid, {divergence}", dpo_trainer, given)
    given = {"stub": _dpo_stub("sigmoid", f_divergence_type="alpha_divergence", f_alpha_divergence_coef=1.0)}
    yield Public("trl DPOTrainer", "sigmoid, alpha_divergence at 1", dpo_trainer, given)
    for name in ("kto", "apo_zero_unpaired"):
        stub = _stub(
            beta=0.1,
            loss_type=name,
            kl=0.25,
            calculate_KL=name == "kto",
            precompute_ref_logps=True,
            desirable_weight=1.5,
            undesirable_weight=0.5,
        )
        yield Public("trl KTOTrainer", name, kto_trainer, {"stub": stub})
    for name in ("sigmoid", "hinge", "ipo", "simpo"):
        yield Public("trl.experimental CPOTrainer", name, cpo_trainer, {"stub": _cpo_stub(name)})
    smooth = {"stub": _cpo_stub("sigmoid", label_smoothing=0.1, cpo_alpha=0.0)}
    yield Public("trl.experimental CPOTrainer", "sigmoid, label_smoothing", cpo_trainer, smooth)
    alpha = {"stub": _cpo_stub("sigmoid", alpha=0.5)}
    yield Public("trl.experimental CPOTrainer", "AlphaPO", cpo_trainer, alpha)
    yield Public("trl.experimental ORPOTrainer", "orpo", orpo_trainer, {"stub": _stub(beta=0.1)})


def _ours() -> Iterator[Public]:
    losses = [
        *(
            pl.DPO(0.1),
            pl.DPO(0.1, mean=True),
            pl.IPO(0.1),
            pl.SLiC(0.1),
            pl.SimPO(2.0, 0.5),
            pl.CPO(0.1),
            pl.ORPO(0.1),
        ),
        *(pl.OddsRatio(0.1), pl.DPOP(0.1, 5.0), pl.EXO(0.1, 0.01), pl.NCA(0.1), pl.BCO(0.1, 0.5), pl.SPPO(0.1)),
        *(pl.APOZero(0.1), pl.APODown(0.1), pl.DiscoPOP(0.1), pl.SFT(reduction="sum"), pl.SFT(reduction="token_mean")),
        *(pl.RPO(0.1, 0.5, "sum"), pl.Robust(pl.DPO(0.1), 0.2), pl.Smoothed(pl.DPO(0.1), 0.2)),
        *(pl.RankHinge(1.5), pl.SLiCHF(1.5, 0.4)),
        *(pl.SePPO(0.1), pl.SePPO(0.1, "indicator"), pl.HolderDPO(0.1, 2.0)),
        *(pl.RDPO(0.1, 0.02), pl.FocalPO(0.1, 0.5), pl.CalDPO(0.5), pl.SimPER(), pl.re_po(1.5)),
        *(pl.f_dpo(0.1, "forward_kl"), pl.f_dpo(0.1, "js"), pl.f_dpo(0.1, "alpha", 0.3)),
        *(pl.ChiPO(0.1, 10.0), pl.SquaredPO(0.1), pl.AlphaPO(2.0, 0.5, 0.25)),
        pl.WPO(pl.DPO(0.1)),
        pl.Calibrated(pl.DPO(0.1)),
        pl.DPO(0.1) + 0.005 * pl.SFT(reduction="sum"),
    ]
    for loss in losses:
        yield Public("prefalign", loss.title, type(loss).__call__, {"self": loss})
    judged = (
        *(pl.PlackettLuce(0.1), pl.BestOf(0.1), pl.LiPO(0.1), pl.Pairs(pl.DPO(0.1)), pl.ODPO(0.1)),
        *(pl.RaoKupper(0.1, 0.5), pl.Davidson(0.1, 0.5), pl.KTO(0.1), pl.UnpairedBCO(0.1), pl.UnpairedAPO(0.1)),
    )
    for loss in judged:
        yield Public("prefalign", loss.title, type(loss).__call__, {"self": loss}, "judged groups", log_ratio=False)
    for loss in (pl.AOT(0.1), pl.AOTUnpaired(0.1), pl.DrDPO(0.1, 1.0), pl.BetaDPO(0.1, 0.5)):
        yield Public("prefalign", loss.title, type(loss).__call__, {"self": loss}, "batch", log_ratio=False)
    for loss in (pl.LD(pl.DPO(0.1), 0.5), pl.SamPO(pl.DPO(0.1), 0)):
        spread = "spreads over its tokens"
        yield Public("prefalign", loss.title, type(loss).__call__, {"self": loss}, spread, log_ratio=False)
    kl = "distribution over the vocabulary"
    yield Public("prefalign", "TDPO(beta=0.1)", pl.TDPO.__call__, {"self": pl.TDPO(0.1)}, kl, log_ratio=False)


def _liger_kto(
    chosen_logps: Any,
    rejected_logps: Any,
    ref_chosen_logps: Any,
    ref_rejected_logps: Any,
    beta: float = 0.1,
    kl: float = 0.25,
) -> Any:
    from liger_kernel.chunked_loss.kto_loss import LigerFusedLinearKTOFunction

    count = len(chosen_logps)
    return LigerFusedLinearKTOFunction.preference_loss_fn(
        torch.cat([chosen_logps, rejected_logps]),
        torch.tensor([True] * count + [False] * count),
        torch.zeros(2 * count, 1),
        torch.cat([ref_chosen_logps, ref_rejected_logps]),
        beta,
        kl,
    )


def _of_means(loss: str) -> Callable[..., Any]:
    """A loss of liger-kernel that its own forward gives means over tokens."""
    from liger_kernel.chunked_loss.orpo_loss import LigerFusedLinearORPOFunction
    from liger_kernel.chunked_loss.simpo_loss import LigerFusedLinearSimPOFunction

    code = {"simpo": LigerFusedLinearSimPOFunction, "orpo": LigerFusedLinearORPOFunction}[loss].preference_loss_fn

    def run(chosen_avg_logps: Any, rejected_avg_logps: Any, settings: dict[str, float]) -> Any:
        return code(chosen_avg_logps, rejected_avg_logps, torch.zeros(2 * len(chosen_avg_logps), 1), **settings)

    return run


def _liger() -> Iterator[Public]:
    if importlib.util.find_spec("liger_kernel") is None:
        return
    from liger_kernel.chunked_loss.cpo_loss import LigerFusedLinearCPOFunction
    from liger_kernel.chunked_loss.dpo_loss import LigerFusedLinearDPOFunction

    def of_pairs(code: Callable[..., Any]) -> Callable[..., Any]:
        """The loss with liger's `full_target`, of which it reads the number of rows only."""

        def run(chosen_logps: Any, rejected_logps: Any, settings: dict[str, Any], **reference: Any) -> Any:
            return code(chosen_logps, rejected_logps, torch.zeros(2 * len(chosen_logps), 1), **reference, **settings)

        return run

    def with_reference(
        chosen_logps: Any, rejected_logps: Any, ref_chosen_logps: Any, ref_rejected_logps: Any, settings: dict[str, Any]
    ) -> Any:
        return of_pairs(LigerFusedLinearDPOFunction.preference_loss_fn)(
            chosen_logps,
            rejected_logps,
            settings,
            ref_chosen_logps=ref_chosen_logps,
            ref_rejected_logps=ref_rejected_logps,
        )

    for name in (
        *("sigmoid", "hinge", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "apo_zero", "apo_down"),
        "discopop",
    ):
        settings = {"loss_type": name, "beta": 0.1, "label_smoothing": 0.1}
        yield Public("liger-kernel", f"dpo {name}", with_reference, {"settings": settings})
    cpo = of_pairs(LigerFusedLinearCPOFunction.preference_loss_fn)
    yield Public("liger-kernel", "cpo", cpo, {"settings": {"beta": 0.1, "label_smoothing": 0.1}})
    yield Public("liger-kernel", "simpo", _of_means("simpo"), {"settings": {"beta": 2.0, "gamma": 0.5}})
    yield Public("liger-kernel", "orpo, odds term", _of_means("orpo"), {"settings": {"beta": 0.1}})
    yield Public("liger-kernel", "kto", _liger_kto)


PUBLIC = (*_ours(), *_trl())
LIGER = tuple(_liger())
