"""The expression language: what it reads, and where its errors point."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefalign import PrefalignError
from prefalign._errors import LossError, ParseError
from prefalign._expressions import Argument, Call, Constant, Items, Number, Text, Weighted, plain_value, read_expression
from prefalign.losses import (
    AOT,
    BCO,
    CPO,
    DPO,
    DPOP,
    EXO,
    IPO,
    ORPO,
    RPO,
    SFT,
    SPPO,
    DiscoPOP,
    DrDPO,
    HolderDPO,
    Loss,
    OddsRatio,
    Robust,
    SePPO,
    SimPO,
    SLiC,
    Smoothed,
    parse_loss,
)

from .samples import EVERY_LOSS, title

positive = st.floats(min_value=1e-300, max_value=1e300, allow_nan=False)
rate = st.floats(min_value=0.0, max_value=0.5, exclude_max=True)
smoothing = st.floats(min_value=0.0, max_value=0.5, exclude_max=True, exclude_min=True)
reduction = st.sampled_from(["sum", "sequence_mean", "token_mean"])
any_float = st.floats(allow_nan=False, allow_infinity=False)

pairwise = st.one_of(
    st.builds(DPO, positive, st.booleans()),
    st.builds(IPO, positive, st.booleans()),
    st.builds(SLiC, positive),
    st.builds(SimPO, positive, positive, st.booleans()),
    st.builds(OddsRatio, positive, st.booleans()),
    st.builds(DPOP, positive, positive),
    st.builds(EXO, positive, smoothing),
    st.builds(BCO, positive, any_float),
    st.builds(SPPO, positive),
    st.builds(DiscoPOP, positive, st.floats(min_value=0.01, max_value=1.0)),
    st.builds(HolderDPO, positive, positive),
)
other = st.one_of(
    st.builds(SFT, reduction),
    st.builds(AOT, positive, rate),
    st.builds(RPO, positive, positive, reduction),
    st.builds(CPO, positive, positive, reduction, st.booleans()),
    st.builds(ORPO, positive, reduction, st.booleans()),
    st.builds(DrDPO, positive, positive),
    st.builds(SePPO, positive, st.sampled_from(["sign", "indicator", "none"])),
)
weight = st.floats(min_value=-1e100, max_value=1e100, allow_nan=False)


def sums(losses: st.SearchStrategy[Loss]) -> st.SearchStrategy[Loss]:
    def add(parts: list[tuple[float, Loss]]) -> Loss:
        total = parts[0][0] * parts[0][1]
        for factor, loss in parts[1:]:
            total = total + factor * loss
        return total

    return st.lists(st.tuples(weight, losses), min_size=1, max_size=4).map(add)


swappable = st.recursive(
    pairwise,
    lambda inner: st.one_of(st.builds(Robust, inner, rate), st.builds(Smoothed, inner, rate), sums(inner)),
    max_leaves=6,
)


@settings(deadline=None, max_examples=100)
@given(st.one_of(swappable, other, sums(st.one_of(swappable, other))))
def test_an_expression_reads_back_to_an_equal_loss(loss):
    assert parse_loss(loss.expression) == loss


@pytest.mark.parametrize("loss", EVERY_LOSS, ids=title)
def test_every_loss_reads_back(loss):
    assert parse_loss(loss.expression) == loss


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        (
            "robust(dpo(beta=0.1), flip_rate=0.2) + 0.005*sft(reduction='sum')",
            Robust(DPO(beta=0.1), flip_rate=0.2) + 0.005 * SFT(reduction="sum"),
        ),
        ("dpo(.1)", DPO(beta=0.1)),
        (" dpo (\n beta = 1e-1 ,\n ) ", DPO(beta=0.1)),
        ("dpo(+1E-1, true)", DPO(beta=0.1, mean=True)),
        ('sft("sum")', SFT(reduction="sum")),
        ("sft(reduction=sum)", SFT(reduction="sum")),
        ("bco(beta=1, shift=-2.5e+1)", BCO(beta=1.0, shift=-25.0)),
        ("odds_ratio", OddsRatio()),
        ("robust(odds_ratio, 0.1)", Robust(OddsRatio(), 0.1)),
        ("2*(dpo(.1) - ipo(.2)*0.5)", 2 * DPO(0.1) + -1.0 * IPO(0.2)),
        ("-dpo(.1)", -1 * DPO(0.1)),
        ("0.5*2*dpo(.1)", DPO(0.1)),
        ("robust(dpo(.1) + 3*ipo(.2), .1)", Robust(DPO(0.1) + 3 * IPO(0.2), 0.1)),
        ("sigmoid(beta=.1)", DPO(0.1)),
        ("hinge(beta=.1)", SLiC(0.1)),
        ("sigmoid_norm(beta=.1)", DPO(0.1, mean=True)),
        ("cdpo(beta=.1, flip_rate=.2)", Smoothed(DPO(0.1), 0.2)),
        ("rdpo(beta=.1, flip_rate=.2)", Robust(DPO(0.1), 0.2)),
    ],
)
def test_what_the_language_reads(text, loss):
    assert parse_loss(text) == loss


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("dop(beta=.1)", 0, "There is no loss `dop`. Did you mean `dpop`"),
        ("simppo(2, .5)", 0, "Did you mean `simpo`"),
        ("qqqq(1)", 0, "Known losses: .*dpo"),
        ("DPO(beta=.1)", 0, "Did you mean `dpo`"),
        ("dpo(.1) + zzz(2)", 10, "There is no loss `zzz`"),
        ("dpo(betta=.1)", 4, "no argument `betta`; it takes beta, mean. Did you mean `beta`"),
        ("robust(dpo(.1), fliprate=.2)", 16, "Did you mean `flip_rate`"),
        ("dpo()", 0, "needs the argument `beta`"),
        ("robust(dpo(.1))", 0, "needs the argument `flip_rate`"),
        ("dpo", 0, "needs the argument `beta`"),
        ("dpo(beta=.1, beta=.2)", 13, "`beta` is given twice"),
        ("dpo(.1, beta=.2)", 8, "`beta` is given twice"),
        ("dpo(beta=.1, True)", 13, "cannot follow one with its name"),
        ("dpo(.1, True, 3)", 14, "takes 2 arguments"),
        ("dpo(beta='x')", 9, "`beta` must be a number"),
        ("dpo(beta=ipo(.1))", 9, "`beta` must be a number"),
        ("dpo(beta=[.1])", 9, "`beta` must be a number"),
        ("dpo(beta=None)", 9, "`beta` must be a number"),
        ("dpo(.1, mean=1)", 13, "`mean` must be True or False"),
        ("sft(reduction='summ')", 14, "Did you mean `sum`"),
        ("sft(reduction=3)", 14, "must be one of 'sum'"),
        ("robust(0.1, 0.2)", 7, "expected a loss"),
        ("robust('dpo', 0.2)", 7, "expected a loss"),
        ("3", 0, "expected a loss"),
        ("[dpo(.1)]", 0, "expected a loss"),
        ("1 + dpo(.1)", 0, "a number cannot be a term"),
        ("dpo(.1) + 1", 10, "a number cannot be a term"),
        ("dpo(.1)*ipo(.1)", 8, "a number on at least one side"),
        ("dpo(.1", 6, "expected `,` or `\\)`"),
        ("dpo(.1))", 7, "found `\\)`"),
        ("dpo(.1) ipo(.1)", 8, "expected `\\+`"),
        ("dpo(.1) +", 9, "found the end"),
        ("dpo(=.1)", 4, "found `=`"),
        ("(dpo(.1)", 8, "to close the bracket"),
        ("dpo(.1, 'x", 8, "this quote is not closed"),
        ("dpo(beta=1e999)", 9, "too large"),
        ("dpo(.1) $", 8, "unexpected character"),
        ("", 0, "it is empty"),
        ("  ", 2, "it is empty"),
        ("a/b(1)", 0, "no name that could be called"),
        ("dpo(a/b=1)", 4, "no name of an argument"),
        ("--dpo(.1)", 1, "one sign is enough"),
    ],
)
def test_an_error_points_at_the_wrong_place(text, position, message):
    with pytest.raises(ParseError, match=message) as caught:
        parse_loss(text)
    assert caught.value.position == position
    assert caught.value.text == text


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("dpo(beta=0)", 4, "`beta` must be a finite number > 0"),
        ("robust(dpo(beta=0.1), flip_rate=0.5)", 22, r"`flip_rate` must be a number in \[0, 0.5\)"),
        ("robust(aot(beta=.1), .1)", 0, "`robust` cannot wrap AOT"),
        ("dpo(.1) + simpo(beta=2, gamma=-1)", 24, "`gamma` must be"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_users_text(text, column, message):
    with pytest.raises(LossError, match=message) as caught:
        parse_loss(text)
    assert str(caught.value).splitlines()[-2:] == [f"    {text}", "    " + " " * column + "^"]


@pytest.mark.parametrize(
    "text",
    [
        "x" * 10_000_000,
        "(" * 20_000,
        "[" * 20_000,
        "robust(" * 10_000,
        "-" * 50_000,
        "1" * 90_000 + "x",
        "1" * 90_000,
        "1*" * 20_000,
        "'" * 90_001,
        "dpo(.1)+" * 4_000,
        "__import__('os').system('true')",
        "(lambda: 0)()",
    ],
    ids=lambda text: text[:12],
)
def test_hostile_text_is_refused_fast(text):
    started = time.process_time()
    with pytest.raises(PrefalignError) as caught:
        parse_loss(text)
    assert time.process_time() - started < 5.0
    assert len(str(caught.value)) < 2_000


def test_a_long_sum_is_read_in_linear_time():
    started = time.process_time()
    assert len(parse_loss("+".join(["sft(sum)"] * 4_000)).terms) == 4_000
    assert time.process_time() - started < 5.0


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet="dpoisft(),=+-*.01'\"[] \n\t/\\é", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        assert isinstance(parse_loss(text), Loss)
    except PrefalignError:
        return


@pytest.mark.parametrize("value", [None, 3, b"dpo(.1)"])
def test_what_is_no_text_is_refused(value):
    with pytest.raises(ParseError, match="must be text"):
        parse_loss(value)


def test_the_reader_knows_paths_lists_and_constants():
    node = read_expression("soup(./a-1/b, org/model@main, 2024-01/x, weights=[.5, -1e-3], x=None)", "reference")
    assert node == Call(
        "soup",
        (
            Argument(None, Text("./a-1/b", 5, quoted=False), 5),
            Argument(None, Text("org/model@main", 14, quoted=False), 14),
            Argument(None, Text("2024-01/x", 30, quoted=False), 30),
            Argument("weights", Items((Number(0.5, 50), Number(-0.001, 54)), 49), 41),
            Argument("x", Constant(None, 64), 62),
        ),
        0,
    )


def test_the_reader_keeps_whole_numbers_whole():
    node = read_expression("past(keep=7, every=30.)", "reference")
    assert isinstance(node, Call)
    values = [plain_value(argument.value) for argument in node.arguments]
    assert values == [7, 30.0]
    assert [type(value) for value in values] == [int, float]


def test_the_reader_weighs_words():
    assert read_expression("0.5*a - b", "reference") == Weighted(
        ((0.5, Text("a", 4, quoted=False)), (-1.0, Text("b", 8, quoted=False))), 0
    )


def test_a_string_is_what_stands_between_its_quotes():
    assert plain_value(read_expression(r"'C:\new \'", "reference")) == "C:\\new \\"
