"""The loss object: what it needs, how it adds, prints and refuses."""

from __future__ import annotations

import dataclasses
import doctest
import importlib
import pkgutil
from dataclasses import dataclass

import pytest
import torch

import prefalign.losses
from prefalign import PrefalignError
from prefalign.losses import (
    AOT,
    DPO,
    DPOP,
    EXO,
    IPO,
    ORPO,
    RPO,
    SFT,
    AOTUnpaired,
    DiscoPOP,
    DrDPO,
    HolderDPO,
    Loss,
    PairLogps,
    Robust,
    SePPO,
    SimPO,
    SLiCHF,
    Smoothed,
    WeightedSum,
    parse_loss,
    register_loss,
)

from .samples import EVERY_LOSS, NOT_SWAPPABLE, random_pairs, title

PAIR = torch.tensor([-2.0, -3.0])


@pytest.mark.parametrize("module", [info.name for info in pkgutil.iter_modules(prefalign.losses.__path__)])
def test_the_examples_of_the_docstrings_are_true(module):
    names = {"torch": torch, "dataclass": dataclass, **vars(prefalign.losses)}
    loaded = importlib.import_module(f"prefalign.losses.{module}")
    assert doctest.testmod(loaded, extraglobs=names).failed == 0


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=title)
def test_a_loss_reads_no_more_than_it_says(loss):
    pairs = random_pairs(0)
    if not loss.needs_reference:
        pairs = dataclasses.replace(pairs, ref_chosen=None, ref_rejected=None)
    if not loss.needs_lengths:
        pairs = dataclasses.replace(pairs, chosen_tokens=None, rejected_tokens=None)
    assert loss(pairs).shape == (6,)


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=title)
def test_a_loss_says_what_is_missing(loss):
    bare = PairLogps(PAIR, PAIR)
    if loss.needs_reference or loss.needs_lengths:
        with pytest.raises(PrefalignError, match=r"give `(ref_chosen|chosen_tokens)` and"):
            loss(bare)
    else:
        assert loss(bare).isfinite().all()


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=title)
def test_a_loss_prints_sum_or_mean_and_its_numbers(loss):
    for _, term in loss.terms:
        assert term.formula in str(loss)
        assert term.aggregation in str(loss)
        assert "over" in term.aggregation
        assert "tokens" in term.aggregation


def test_dpo_prints_its_formula():
    assert str(DPO(beta=0.1)) == (
        "DPO(beta=0.1): -log sigmoid(0.1*((log pi(w) - log ref(w)) - (log pi(l) - log ref(l)))), sums over tokens"
    )
    assert str(DPO(beta=0.1, mean=True)) == (
        "DPO(beta=0.1, mean=True): -log sigmoid(0.1*((log pi(w) - log ref(w))/|w| - (log pi(l) - log ref(l))/|l|)), "
        "means over tokens"
    )


def test_a_sum_prints_one_formula_per_term():
    assert str(Robust(SimPO(beta=2, gamma=1), flip_rate=0.2) + 0.005 * SFT(reduction="sum")) == (
        "Robust(SimPO(beta=2.0, gamma=1.0), flip_rate=0.2) + 0.005*SFT(reduction='sum'):\n"
        "    1 * [(0.8*L(w, l) - 0.2*L(l, w))/0.6 with L(w, l) = -log sigmoid(2*(log pi(w)/|w| - log pi(l)/|l|) - 1)], "
        "means over tokens\n"
        "    0.005 * [-log pi(w)], sums over tokens"
    )


def test_sums_and_multiples_flatten():
    dpo, ipo, sft = DPO(beta=0.1), IPO(beta=0.2), SFT(reduction="sum")
    loss = 2 * (dpo + 0.5 * (ipo + sft)) + sft
    assert loss.terms == ((2.0, dpo), (1.0, ipo), (1.0, sft), (1.0, sft))
    assert dpo + ipo == WeightedSum(((1.0, dpo), (1.0, ipo)))
    assert 1 * dpo == dpo


def test_a_named_sum_inside_a_sum_gives_its_terms_and_keeps_its_name():
    loss = 2.0 * RPO(beta=0.1, eta=0.5, reduction="sum")
    assert loss.terms == ((2.0, DPO(beta=0.1)), (0.1, SFT(reduction="sum")))
    assert loss.expression == "2.0*rpo(beta=0.1, eta=0.5, reduction='sum')"


def test_a_sum_is_the_weighted_sum_of_its_values():
    pairs = random_pairs(0)
    loss = 0.3 * DPO(beta=0.1) + 2 * SFT(reduction="sum")
    torch.testing.assert_close(loss(pairs), 0.3 * DPO(beta=0.1)(pairs) - 2 * pairs.chosen)
    torch.testing.assert_close(loss.reduce(pairs), loss(pairs).mean())


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_is_multiplied_by_finite_numbers_only(factor):
    with pytest.raises(PrefalignError, match="finite number"):
        factor * DPO(beta=0.1)


@pytest.mark.parametrize("factor", [True, "2", DPO(beta=0.1)])
def test_a_loss_is_multiplied_by_nothing_else(factor):
    with pytest.raises(TypeError):
        factor * DPO(beta=0.1)


@pytest.mark.parametrize("wrapper", [Robust, Smoothed])
@pytest.mark.parametrize("loss", NOT_SWAPPABLE, ids=title)
def test_the_wrappers_refuse_what_cannot_see_its_pair_swapped(wrapper, loss):
    with pytest.raises(PrefalignError, match=r"cannot wrap .* (sorts|alone|couples|no label)"):
        wrapper(loss, flip_rate=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DPO(beta=0.0), "`beta` must be a finite number > 0 .got 0.0.. .*SimPO"),
        (lambda: DPO(beta=float("nan")), "`beta` must be a finite number > 0 .got nan"),
        (lambda: DPO(beta="0.1"), "`beta` must be a finite number > 0 .got '0.1'"),
        (lambda: DPO(beta=True), "`beta` must be a finite number > 0 .got True"),
        (lambda: DPO(beta=0.1, mean=1), "`mean` must be True or False"),
        (lambda: Robust(DPO(beta=0.1), flip_rate=0.5), r"`flip_rate` must be a number in \[0, 0.5\) .got 0.5"),
        (lambda: Robust(DPO(beta=0.1), flip_rate=-0.1), r"`flip_rate` must be a number in \[0, 0.5\)"),
        (lambda: Smoothed(DPO(beta=0.1), flip_rate=1), r"`flip_rate` must be a number in \[0, 0.5\)"),
        (lambda: Robust("dpo", flip_rate=0.1), "`loss` must be a loss"),
        (lambda: SFT(reduction="mean"), "`reduction` must be one of"),
        (lambda: SFT(reduction="token_men"), "Did you mean `token_mean`"),
        (lambda: RPO(beta=0.1, eta=-1, reduction="sum"), "`eta` must be a finite number >= 0"),
        (lambda: ORPO(beta=0.1, reduction="no"), "`reduction` must be one of"),
        (lambda: DPOP(beta=0.1, penalty=-1), "`penalty` must be"),
        (lambda: EXO(beta=0.1, label_smoothing=0), "the loss is infinite"),
        (lambda: DiscoPOP(beta=0.1, tau=1.5), "`tau` must be"),
        (lambda: SimPO(beta=2, gamma=-1), "`gamma` must be"),
        (lambda: SePPO(beta=0.1, flipper="sing"), "Did you mean `sign`"),
        (lambda: DrDPO(beta=0.1, beta_prime=0), "`beta_prime` must be"),
        (lambda: HolderDPO(beta=0.1, gamma=0), "`gamma` must be"),
        (lambda: AOT(beta=0.1, label_smoothing=0.5), "`label_smoothing` must be"),
        (lambda: AOTUnpaired(beta=-1), "`beta` must be"),
        (lambda: WeightedSum(()), "at least one"),
        (lambda: WeightedSum(((1.0, DPO(beta=0.1) + IPO(beta=0.1)),)), "no sums themselves"),
    ],
)
def test_a_hyperparameter_out_of_range_is_refused_at_once(make, message):
    with pytest.raises(PrefalignError, match=message):
        make()


def test_the_half_open_temperature_of_discopop_includes_one():
    assert DiscoPOP(beta=0.1, tau=1).tau == 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chosen": PAIR[None]}, r"`chosen` must have the shape \(pairs,\)"),
        ({"chosen": PAIR[:0], "rejected": PAIR[:0]}, "at least one pair"),
        ({"rejected": PAIR[:1]}, r"`rejected` must have the shape of `chosen`, \(2,\) \(got \(1,\)\)"),
        ({"chosen": PAIR.long()}, "`chosen` must be a tensor of floats .got torch.int64."),
        ({"ref_rejected": PAIR.bool(), "ref_chosen": PAIR}, "`ref_rejected` must be a tensor of floats"),
        ({"chosen": None}, "`chosen` must be a tensor"),
        ({"chosen": [-1.0, -2.0]}, "`chosen` must be a tensor .* list"),
        ({"ref_chosen": PAIR}, "`ref_rejected` is missing"),
        ({"rejected_tokens": PAIR}, "`chosen_tokens` is missing"),
        ({"chosen_tokens": PAIR, "rejected_tokens": PAIR[0]}, "`rejected_tokens` must have the shape"),
    ],
)
def test_malformed_pairs_are_refused(fields, message):
    with pytest.raises(PrefalignError, match=message):
        PairLogps(**{"chosen": PAIR, "rejected": PAIR, **fields})


def test_slic_hf_is_a_hinge_on_log_probabilities_with_a_regulariser():
    # delta 2: the first pair is 1.5 nats ahead, the second 3 nats: 0.5 and 0; plus 0.1 * 4 and 0.1 * 1.
    pairs = PairLogps(torch.tensor([-4.0, -1.0]), torch.tensor([-5.5, -4.0]))
    torch.testing.assert_close(SLiCHF(delta=2.0, regulariser=0.1)(pairs), torch.tensor([0.9, 0.1]))
    torch.testing.assert_close(SLiCHF(delta=2.0, regulariser=0.0)(pairs), torch.tensor([0.5, 0.0]))
    assert not SLiCHF(delta=2.0, regulariser=0.1).needs_reference


def test_swapping_twice_gives_the_pairs_back():
    pairs = random_pairs(0)
    swapped = pairs.swapped()
    assert torch.equal(swapped.chosen, pairs.rejected)
    assert torch.equal(swapped.ref_chosen, pairs.ref_rejected)
    assert torch.equal(swapped.chosen_tokens, pairs.rejected_tokens)
    again = swapped.swapped()
    fields = [field.name for field in dataclasses.fields(pairs) if getattr(pairs, field.name) is not None]
    assert len(fields) == 6
    assert all(torch.equal(getattr(again, field), getattr(pairs, field)) for field in fields)


def test_an_empty_completion_counts_as_one_token():
    zero = torch.zeros(1)
    pairs = PairLogps(zero, zero - 4.0, chosen_tokens=torch.tensor([0]), rejected_tokens=torch.tensor([2]))
    chosen, rejected = pairs.logps(mean=True)
    assert (chosen.item(), rejected.item()) == (0.0, -2.0)


def test_losses_are_values():
    assert DPO(beta=0.1) == DPO(beta=0.1) != DPO(beta=0.2)
    assert len({DPO(beta=1), DPO(beta=1.0), IPO(beta=1.0)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        DPO(beta=0.1).beta = 0.2


@dataclass(frozen=True)
class Plain(Loss):
    """A user's loss, for the tests."""

    @property
    def formula(self) -> str:
        """Its formula."""
        return "-log pi(w)"

    def __call__(self, pair_logps: PairLogps) -> torch.Tensor:
        """Its values."""
        return -pair_logps.chosen


def test_a_loss_without_a_name_works_but_has_no_expression():
    assert str(Plain()) == "Plain(): -log pi(w), sums over tokens"
    assert Robust(Plain(), flip_rate=0.1)(PairLogps(PAIR, PAIR)).tolist() == pytest.approx([2.0, 3.0])
    with pytest.raises(PrefalignError, match="register_loss"):
        _ = Plain().expression


@pytest.mark.parametrize("name", ["dpo", "logic", "Upper", "two words"])
def test_a_name_that_is_taken_or_malformed_is_refused(name):
    with pytest.raises(PrefalignError, match=r"taken|lower-case"):
        register_loss(name)(Plain)
    assert parse_loss("dpo(.1)") == DPO(beta=0.1)


def test_a_class_of_the_same_name_does_not_replace_a_built_in_loss():
    impostor = dataclass(frozen=True)(type("DPO", (Plain,), {"__module__": "elsewhere"}))
    with pytest.raises(PrefalignError, match="`dpo` is taken"):
        register_loss("dpo")(impostor)


def test_a_class_that_is_defined_again_replaces_itself():
    register_loss("again_for_tests")(dataclass(frozen=True)(type("Again", (Plain,), {})))
    second = register_loss("again_for_tests")(dataclass(frozen=True)(type("Again", (Plain,), {})))
    assert type(parse_loss("again_for_tests")) is second


def test_a_registered_loss_is_read_back():
    register_loss("plain_for_tests")(Plain)
    loss = 0.5 * Plain() + DPO(beta=0.1)
    assert parse_loss(loss.expression) == loss
