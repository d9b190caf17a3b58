"""The head that keeps its logits gives what TRL's head gives, values and gradients."""

from __future__ import annotations

import inspect

import pytest
import torch
from trl.kernels.chunked_logprob import ChunkedLogProbFunction
from trl.trainer import utils

from prefalign.train._trl import HEAD_OUTPUTS
from prefalign.train.forward import _head
from prefalign.train.forward._head import KeptLogits, fits

ROWS, WIDTH, VOCABULARY = 37, 12, 53
# temperature, soft cap, scale of the logits
TRANSFORMS = [(1.0, None, 1.0), (0.7, None, 1.0), (1.0, 5.0, 1.0), (1.0, None, 0.25), (1.3, 4.0, 2.0)]


def inputs(dtype=torch.float32, bias=True):
    generator = torch.Generator().manual_seed(0)
    hidden, weight, offset = (
        (torch.randn(*shape, generator=generator) * 1.5 * (12 / WIDTH) ** 0.5).to(dtype).requires_grad_()
        for shape in ((ROWS, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,))
    )
    targets = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    return hidden, weight, offset if bias else None, targets


def both(function, dtype, transform, bias, entropy):
    """(outputs, gradients of a loss of log-probabilities and, if `entropy`, of the entropy)."""
    temperature, softcap, scale = transform
    hidden, weight, offset, targets = inputs(dtype, bias)
    outputs = function.apply(hidden, weight, offset, targets, temperature, 20, softcap, scale, HEAD_OUTPUTS)
    places = torch.linspace(-1, 2, ROWS)
    loss = (outputs[0] * places).sum() + (outputs[1] * places.flip(0)).sum() * entropy
    leaves = [x for x in (hidden, weight, offset) if x is not None]
    return outputs, torch.autograd.grad(loss, leaves)


@pytest.fixture(params=[(1, 12), (2, 12), (7, 12), (1, 37), (7, 40)], ids=lambda p: f"{p[0]} slices, {p[1]} units")
def slices(request, monkeypatch):
    """The vocabulary in one slice, in two and in seven, folded in blocks of five rows of one slice.

    From as many units as rows on, the weight's gradient overwrites the logits.
    """
    count, width = request.param
    monkeypatch.setitem(globals(), "WIDTH", width)
    monkeypatch.setattr(_head, "_FOLD", 5 * VOCABULARY)
    for name in ("_KEPT_SLICE", "_PASSING_SLICE"):
        monkeypatch.setattr(_head, name, ROWS * 4 * VOCABULARY // count)


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("entropy", [0.0, 0.5])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_values_and_gradients_are_those_of_trls_head(transform, bias, entropy):
    ours, ours_gradients = both(KeptLogits, torch.float32, transform, bias, entropy)
    theirs, theirs_gradients = both(ChunkedLogProbFunction, torch.float32, transform, bias, entropy)
    for mine, trl in zip(ours[:4], theirs[:4], strict=True):
        torch.testing.assert_close(mine, trl, atol=1e-5, rtol=1e-5)
    assert torch.equal(ours[4], theirs[4])
    for mine, trl in zip(ours_gradients, theirs_gradients, strict=True):
        assert (mine - trl).norm() <= 2e-6 * trl.norm()


@pytest.mark.usefixtures("slices")
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_gradients_are_the_derivatives(transform):
    temperature, softcap, scale = transform
    hidden, weight, offset, targets = inputs(torch.float64)
    hidden, targets = hidden[:4].detach().requires_grad_(), targets[:4]

    def outputs(*leaves):
        return KeptLogits.apply(*leaves, targets, temperature, 20, softcap, scale, HEAD_OUTPUTS)[:2]

    assert torch.autograd.gradcheck(outputs, (hidden, weight, offset), fast_mode=WIDTH > 12)


@pytest.mark.usefixtures("slices")
def test_bfloat16_is_no_further_from_float32_than_trls():
    exact, exact_gradients = both(KeptLogits, torch.float32, TRANSFORMS[0], True, 0.0)
    errors = []
    for function in (KeptLogits, ChunkedLogProbFunction):
        outputs, gradients = both(function, torch.bfloat16, TRANSFORMS[0], True, 0.0)
        found = [(outputs[0] - exact[0]).abs().max()]
        found += [(g.float() - e).norm() / e.norm() for g, e in zip(gradients, exact_gradients, strict=True)]
        errors.append(torch.stack(found))
    assert (errors[0] <= 1.05 * errors[1] + 1e-6).all()


@pytest.mark.parametrize("size", [1, 2**20])
def test_only_the_first_of_equal_logits_is_on_top(size, monkeypatch):
    monkeypatch.setattr(_head, "_KEPT_SLICE", size)  # a slice for every token, and one for all
    monkeypatch.setattr(_head, "_PASSING_SLICE", size)
    hidden, weight = torch.ones(3, 1), torch.tensor([[0.0], [1.0], [1.0]])
    top = KeptLogits.apply(hidden, weight, None, torch.tensor([0, 1, 2]), 1.0, 2, None, 1.0, ("is_top1",))[4]
    assert top.tolist() == [False, True, False]


@pytest.mark.usefixtures("slices")
def test_a_second_backward_computes_the_logits_again():
    hidden, weight, offset, targets = inputs()
    log_probs = KeptLogits.apply(hidden, weight, offset, targets, 1.0, 20)[0]
    first = torch.autograd.grad(log_probs.sum(), weight, retain_graph=True)[0]
    second = torch.autograd.grad(log_probs.sum(), weight)[0]
    torch.testing.assert_close(first, second)
    assert first.data_ptr() != second.data_ptr()


def test_a_backward_pass_that_was_interrupted_can_be_made_again(monkeypatch):
    hidden, weight, offset, targets = inputs()
    for name in ("_KEPT_SLICE", "_PASSING_SLICE"):
        monkeypatch.setattr(_head, name, ROWS * 4 * VOCABULARY // 5)
    log_probs = KeptLogits.apply(hidden, weight, offset, targets, 1.0, 20)[0]
    whole = torch.autograd.grad(log_probs.sum(), weight, retain_graph=True)[0]
    log_probs = KeptLogits.apply(hidden, weight, offset, targets, 1.0, 20)[0]
    turn, count = _head._to_gradient, []

    def interrupted(*args):
        count.append(turn(*args))
        if len(count) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(_head, "_to_gradient", interrupted)
    with pytest.raises(KeyboardInterrupt):
        torch.autograd.grad(log_probs.sum(), weight, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(log_probs.sum(), weight)[0], whole)


@pytest.mark.parametrize(("width", "one"), [(ROWS - 1, False), (ROWS, True)])
def test_the_weights_gradient_takes_the_logits_place_where_it_is_no_smaller(width, one, monkeypatch):
    places = set()
    fold = _head._fold
    monkeypatch.setattr(_head, "_fold", lambda z, *rest: places.add(z.untyped_storage().data_ptr()) or fold(z, *rest))
    monkeypatch.setitem(globals(), "WIDTH", width)
    hidden, weight, offset, targets = inputs()
    log_probs = KeptLogits.apply(hidden, weight, offset, targets, 1.0, 20)[0]
    gradient = torch.autograd.grad(log_probs.sum(), weight)[0]
    assert (gradient.untyped_storage().data_ptr() in places) == one


@pytest.mark.usefixtures("slices")
def test_without_gradients_the_values_are_the_same():
    hidden, weight, offset, targets = inputs()
    kept = KeptLogits.apply(hidden, weight, offset, targets, 1.0, 20)
    with torch.no_grad():
        passing = KeptLogits.apply(hidden.detach(), weight, offset, targets, 1.0, 20)
    for a, b in zip(kept, passing, strict=True):
        torch.testing.assert_close(a, b)


def test_without_gradients_of_the_hidden_states_no_logits_are_kept(monkeypatch):
    """As in a reference's forward pass, whose weights may be trainable ones."""
    widths = []
    fold = _head._fold
    monkeypatch.setattr(_head, "_fold", lambda logits, *rest: widths.append(logits.shape[1]) or fold(logits, *rest))
    monkeypatch.setattr(_head, "_PASSING_SLICE", ROWS * 4 * 10)
    hidden, weight, offset, targets = inputs()
    KeptLogits.apply(hidden, weight, offset, targets, 1.0, 20)
    with torch.no_grad():
        KeptLogits.apply(hidden.detach(), weight, offset, targets, 1.0, 20)
    assert widths == [VOCABULARY, 11, 11, 11, 11, 9]


def test_a_head_alone_can_be_trained():
    hidden, weight, offset, targets = inputs()
    whole = torch.autograd.grad(KeptLogits.apply(hidden, weight, offset, targets, 1.0, 20)[0].sum(), weight)[0]
    head = torch.autograd.grad(KeptLogits.apply(hidden.detach(), weight, offset, targets, 1.0, 20)[0].sum(), weight)[0]
    torch.testing.assert_close(head, whole)


@pytest.mark.parametrize(
    ("vocabulary", "bytes_per_column", "ends"),
    [(49152, 2048, [16384, 32768, 49152]), (10, 1, [10]), (10, 2**24, [2, 4, 6, 8, 10]), (3, 2**26, [1, 2, 3])],
)
def test_slices_of_the_vocabulary_are_just_large_enough(vocabulary, bytes_per_column, ends):
    parts = _head._slices(vocabulary, bytes_per_column, 2**25)
    assert [part.stop for part in parts] == ends
    assert [part.start for part in parts] == [0, *ends[:-1]]


def test_frozen_leaves_get_no_gradient():
    hidden, weight, offset, targets = inputs()
    weight.requires_grad_(False)
    log_probs = KeptLogits.apply(hidden, weight, offset, targets, 1.0, 20)[0]
    log_probs.sum().backward()
    assert weight.grad is None
    assert hidden.grad.any()


def test_logits_are_kept_where_a_quarter_of_the_free_memory_holds_them(monkeypatch):
    monkeypatch.setattr(_head.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 4000}))
    cpu = torch.device("cpu")
    assert fits(10, 25, torch.float32, cpu)
    assert not fits(10, 26, torch.float32, cpu)
    assert fits(20, 25, torch.bfloat16, cpu)
    assert not fits(1, 1, torch.float32, torch.device("cuda"))


def test_trls_head_is_called_as_this_one_is():
    """TRL's forward looks its function up by this name, and passes these arguments by position."""
    theirs = list(inspect.signature(ChunkedLogProbFunction.forward).parameters)
    assert utils._ChunkedLogProbFunction is ChunkedLogProbFunction
    assert [name.replace("final_logit_softcapping", "softcap") for name in theirs] == list(
        inspect.signature(KeptLogits.forward).parameters
    )
