"""Specifications as text and YAML mean what the objects mean, and errors point at the character."""

from __future__ import annotations

import pytest

from prefalign._errors import ParseError, SpecError
from prefalign.logic import Spec, count, generate, nearest, parse_spec, read_spec


def _same(spec, other):
    assert spec.atoms == other.atoms
    assert spec.distinct == other.distinct
    assert set(generate(spec)) == set(generate(other))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        (
            "between cpo and unCPO; monotone; max literals 6",
            Spec(between=("cpo", "unCPO"), monotone=True, max_literals=6),
        ),
        ("above 'w*(1-l)/(l*(1-w))' and below vvxv;", Spec(above="orpo", below="uncpo")),
        ("rows TF = v, F* = xo; conditional", Spec(rows={"TF": "v", "F*": "xo"}, conditional=True)),
        ("monotone w+, l-; nonconstant", Spec(monotone={"w": 1, "l": -1}, nonconstant=True)),
        (
            "forall (top -> M(w)) & ~(bottom & M(w)); satisfiable",
            Spec(forall="(top -> w) & ~(bottom & w)", satisfiable=True),
        ),
        ("not above cpo and satisfiable", ~Spec(above="cpo") & Spec(satisfiable=True)),
        ("below ce or (above cpo; monotone)", Spec(below="ce") | Spec(above="cpo", monotone=True)),
        ("survives sum contrast; no displacement joint", Spec(survives_sum="contrast", no_displacement="joint")),
        ("satisfiable; distinct ratio", Spec(satisfiable=True, distinct="ratio")),
        ("reference; between cpo and ccpo", Spec(reference=True, between=("cpo", "ccpo"))),
    ],
)
def test_text_means_what_the_object_means(text, spec):
    _same(parse_spec(text), spec)
    _same(parse_spec(str(parse_spec(text))), spec)  # and prints as text that reads back


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("betwen cpo and ce", 0),
        ("between cpo and zzz", 16),
        ("between cpo unCPO", 12),
        ("max literals many", 13),
        ("rows TX = v", 5),
        ("rows TF = q", 10),
        ("monotone w", 10),
        ("(monotone", 9),
        ("monotone monotone", 9),
        ("forall top >> M(q); monotone", 16),
        ("symmetric mirror", 10),
        ("atoms w, l; atoms w", 12),
        ("monotone; $", 10),
        ("forall", 6),
    ],
)
def test_errors_point_at_the_character(text, position):
    with pytest.raises(ParseError) as caught:
        parse_spec(text)
    assert caught.value.position == position
    assert caught.value.text == text


def test_deep_text_is_refused():
    with pytest.raises(ParseError, match="nested"):
        parse_spec("(" * 200 + "monotone" + ")" * 200)


def test_yaml_means_the_same(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text(
        "atoms: [w, l]\nbetween: [ce, unCPO]\nany:\n  - rows: {FF: o}\n  - conditional; max literals 3\n"
        "not: {rows: {TT: b}}\nall: [satisfiable]\n"
    )
    either = Spec(rows={"FF": "o"}) | Spec(conditional=True, max_literals=3)
    _same(read_spec(file), Spec(between=("ce", "unCPO")) & either & ~Spec(rows={"TT": "b"}) & Spec(satisfiable=True))


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        ("betwen: [a, b]", SpecError, "Did you mean `between`"),
        ("a: [", ParseError, "malformed"),
        ("- 1", SpecError, "must hold a mapping"),
        ("any: 3", SpecError, "`any` must be a list"),
    ],
)
def test_bad_yaml_is_refused_with_the_reason(tmp_path, content, kind, said):
    file = tmp_path / "spec.yml"
    file.write_text(content)
    with pytest.raises(kind, match=said):
        read_spec(file)


def test_the_nearest_structure_is_nearest_by_steps():
    # From unCPO (vvxv) with row FF neither: TT stays v.
    assert nearest("rows FF = o; nontrivial", to="unCPO").rows == "vvxo"
    assert nearest("monotone; nonconstant", to="orpo").rows == "ovxo"
    wide = nearest("reference; rows FFFF = x", to="dpo")
    assert wide.rows == "bxvovovoxxooooox"


def test_a_specification_in_the_hundreds_of_rows_is_still_a_product():
    wide = tuple(f"y{place}" for place in range(1, 9))
    spec = Spec(wide, rows={"T" * 8: "v", "F" * 8: "ox"}, conditional=True)
    assert count(spec) == 1 * 2 * 3**254
