"""Agreement with TRL's own code, run unmodified (see trl_oracle)."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

from prefalign import PrefalignError
from prefalign.losses import (
    AOT,
    BCO,
    CPO,
    DPO,
    IPO,
    NCA,
    ORPO,
    SFT,
    SPPO,
    AOTUnpaired,
    APODown,
    APOZero,
    Loss,
    OddsRatio,
    PairLogps,
    Robust,
    SimPO,
    SLiC,
    Smoothed,
    from_trl,
    trl_names,
)

from .samples import title
from .trl_oracle import Batch, random_tokens, trl_loss

with warnings.catch_warnings():
    # These trainers announce that they are experimental, and that they may move.
    warnings.simplefilter("ignore")
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

SETTINGS = {
    "robust": {"label_smoothing": 0.3},
    "exo_pair": {"label_smoothing": 1e-3},
    "discopop": {"discopop_tau": 0.2},
}
TRL_TYPES = [
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]


def value_and_gradient(tokens: Batch, scalar: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    (gradient,) = torch.autograd.grad(scalar, tokens.policy)
    return scalar.detach(), gradient


def both(loss: Loss, types: list[str], seed: int, scale: float, **settings):
    tokens = random_tokens(seed, scale=scale)
    ours = value_and_gradient(tokens, loss.reduce(tokens.pairs()))
    return ours, value_and_gradient(tokens, trl_loss(tokens, types, **settings))


def test_every_loss_type_of_trl_has_a_loss_here():
    assert set(trl_names()) == set(TRL_TYPES)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("loss", "types", "settings"),
    [
        (DPO(beta=0.1), ["sigmoid"], {}),
        (DPO(beta=0.37, mean=True), ["sigmoid_norm"], {"beta": 0.37}),
        (IPO(beta=0.2), ["ipo"], {"beta": 0.2}),
        (SLiC(beta=0.3), ["hinge"], {"beta": 0.3}),
        (BCO(beta=0.3), ["bco_pair"], {"beta": 0.3}),
        (Robust(DPO(beta=0.1), flip_rate=0.3), ["robust"], {"label_smoothing": 0.3}),
        (Robust(DPO(beta=0.7), flip_rate=0.123), ["robust"], {"beta": 0.7, "label_smoothing": 0.123}),
        (NCA(beta=0.3), ["nca_pair"], {"beta": 0.3}),
        (SPPO(beta=0.3), ["sppo_hard"], {"beta": 0.3}),
        (APOZero(beta=0.3), ["apo_zero"], {"beta": 0.3}),
        (APODown(beta=0.3), ["apo_down"], {"beta": 0.3}),
        (AOT(beta=0.3, label_smoothing=0.1), ["aot"], {"beta": 0.3, "label_smoothing": 0.1}),
        (AOTUnpaired(beta=0.3), ["aot_unpaired"], {"beta": 0.3}),
        (SFT(reduction="token_mean"), ["sft"], {}),
        (
            Robust(DPO(beta=0.1), flip_rate=0.3) + 0.37 * SFT(reduction="token_mean"),
            ["robust", "sft"],
            {"label_smoothing": 0.3, "loss_weights": [1.0, 0.37]},
        ),
        (DPO(beta=0.1) + 0.37 * SFT(reduction="token_mean"), ["sigmoid", "sft"], {"loss_weights": [1.0, 0.37]}),
    ],
    ids=title,
)
def test_value_and_gradient_equal_trls_bit_for_bit(loss, types, settings, seed, scale):
    ours, theirs = both(loss, types, seed, scale, **settings)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("loss_type", TRL_TYPES)
def test_from_trl_computes_what_trl_computes(loss_type, seed):
    settings = {"beta": 0.3, **SETTINGS.get(loss_type, {})}
    if loss_type == "sft":
        del settings["beta"]
    ours, theirs = both(from_trl([loss_type], **settings), [loss_type], seed, 2.0, **settings)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss_type", ["aot", "aot_unpaired"])
def test_from_trl_passes_label_smoothing_to_aot(loss_type):
    ours, theirs = both(from_trl(loss_type, label_smoothing=0.2), [loss_type], 3, 2.0, label_smoothing=0.2)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_from_trl_adds_several_types_with_their_weights():
    types, weights = ["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.5]
    ours, theirs = both(from_trl(types, weights), types, 4, 1.0, loss_weights=weights)
    assert torch.equal(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])


def test_the_oracle_can_tell_two_losses_apart():
    ours, theirs = both(DPO(beta=0.1), ["sigmoid"], 0, 1.0, beta=0.1001)
    assert not torch.equal(ours[0], theirs[0])
    assert not torch.equal(ours[1], theirs[1])


def test_sft_without_single_tokens_differs_from_trl_by_rounding_only():
    tokens = random_tokens(5)
    pairs = tokens.pairs()
    sums = PairLogps(
        pairs.chosen, pairs.rejected, chosen_tokens=pairs.chosen_tokens, rejected_tokens=pairs.rejected_tokens
    )
    ours = value_and_gradient(tokens, SFT(reduction="token_mean").reduce(sums))
    theirs = value_and_gradient(tokens, trl_loss(tokens, ["sft"]))
    torch.testing.assert_close(ours[0], theirs[0], rtol=3e-7, atol=0.0)
    inside = tokens.mask[:, 1:].bool()
    assert torch.equal(ours[1][inside], theirs[1][inside])


def cpo_loss(pairs: PairLogps, loss_type: str, beta: float, gamma: float, smoothing: float) -> torch.Tensor:
    stub = SimpleNamespace(
        alpha=0.0,
        loss_type=loss_type,
        simpo_gamma=gamma,
        beta=beta,
        label_smoothing=smoothing,
        accelerator=SimpleNamespace(device="cpu"),
    )
    means = loss_type == "simpo"
    chosen, rejected = pairs.logps(mean=means)
    return CPOTrainer.cpo_loss(stub, chosen, rejected)[0]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_simpo_equals_trls_bit_for_bit(smoothing):
    pairs = random_tokens(6).pairs()
    loss = Smoothed(SimPO(beta=2.0, gamma=0.7), flip_rate=smoothing)
    if smoothing:
        # TRL smooths after it has subtracted the margin, and so flips the margin too; the wrapper keeps it.
        assert not torch.allclose(loss(pairs), cpo_loss(pairs, "simpo", 2.0, 0.7, smoothing))
        loss = Smoothed(SimPO(beta=2.0, gamma=0.0), flip_rate=smoothing)
        torch.testing.assert_close(loss(pairs), cpo_loss(pairs, "simpo", 2.0, 0.0, smoothing), rtol=0, atol=1e-7)
    else:
        assert torch.equal(loss(pairs), cpo_loss(pairs, "simpo", 2.0, 0.7, 0.0))


def test_cpos_preference_term_equals_trls_bit_for_bit():
    pairs = random_tokens(7).pairs()
    assert torch.equal(CPO(beta=0.3, alpha=0.0)(pairs), cpo_loss(pairs, "sigmoid", 0.3, 0.0, 0.0))


def test_orpos_odds_ratio_term_agrees_with_trl():
    pairs = random_tokens(8).pairs()
    stub = SimpleNamespace(beta=0.4, accelerator=SimpleNamespace(device="cpu"))
    theirs = -ORPOTrainer.odds_ratio_loss(stub, *pairs.logps(mean=True))[0]
    torch.testing.assert_close(0.4 * OddsRatio()(pairs), theirs, rtol=1e-5, atol=1e-6)
    both_terms = ORPO(beta=0.4)(pairs) - SFT(reduction="token_mean")(pairs)
    torch.testing.assert_close(both_terms, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss_types": "sigmoid", "label_smoothing": 0.1}, r"smoothed\(dpo\(beta=0.1\), flip_rate=0.1\)"),
        ({"loss_types": ["ipo", "sft"], "label_smoothing": 0.1}, "`label_smoothing` has no effect"),
        ({"loss_types": "sigmoid", "discopop_tau": 0.1}, "`discopop_tau` has no effect"),
        ({"loss_types": "sft", "beta": 0.2}, "`beta` has no effect"),
        ({"loss_types": "robust", "label_smoothing": 0.5}, r"\[0, 0.5\)"),
        ({"loss_types": "exo_pair"}, r"`label_smoothing` must be a number in \(0, 0.5\) \(got 0.0\)"),
        ({"loss_types": "sigmoid", "beta": 0.0}, "`beta` must be a finite number > 0"),
        ({"loss_types": "sigmod"}, "Did you mean `sigmoid`"),
        ({"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0]}, "one weight for each loss type"),
        ({"loss_types": "sigmoid", "ld_alpha": 1.5}, "`alpha` must be"),
        ({"loss_types": "aot", "use_weighting": True}, "couples the pairs"),
    ],
)
def test_from_trl_refuses_what_would_have_no_effect(arguments, message):
    with pytest.raises(PrefalignError, match=message):
        from_trl(**arguments)
