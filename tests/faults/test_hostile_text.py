"""Hostile text for the small languages: formulas, equations, loss and reference expressions, specifications."""

from __future__ import annotations

import pytest

from prefalign.compiler import to_loss  # noqa: F401  (imports are not what is timed)
from prefalign.logic import derive, parse_formula, parse_spec
from prefalign.losses import parse_loss
from prefalign.references import parse_reference
from tests.faults.hostile import CANARY, refuse

LANGUAGES = {
    "formula": parse_formula,
    "equation": derive,
    "loss": parse_loss,
    "reference": parse_reference,
    "specification": parse_spec,
}
SYSTEM = f"__import__('os').system('touch {CANARY}')"

# Refused in every language.
EVERYWHERE = {
    "blank": " \t\n\u2003",
    "NUL": "w\0l",
    "lone surrogate": "w & \ud800",
    "byte order marks": "\ufeff" * 9,
    "control sequence": "\x1b[2J\x07w",
    "text turned round": "\u202ew & l",
    "full-width letters": "ｗ ∧ ｌ",
    "Cyrillic look-alikes": "ԝ & ӏ",
    "emoji": "😀 -> 😀",
    "half a quote": "dpo('",
    "system call": SYSTEM,
    "system call in a call": f"dpo(beta={SYSTEM})",
    "dunder": "__class__",
    "attributes": "w.__class__.__mro__[1].__subclasses__()",
    "eval": f"eval(compile({SYSTEM!r}, '', 'exec'))",
    "lambda": "(lambda: 0)()",
    "comprehension": "[w for w in ().__class__.__bases__]",
    "walrus": "(w := 9**9**9)",
    "f-string": "f'{__import__}'",
    "shell": f"$(touch {CANARY}) `touch {CANARY}`",
    "template": "{{ 7 * 7 }} {% raw %}",
    "format string": "%s%n {0.__class__} {",
    "YAML tag": f"!!python/object/apply:os.system ['touch {CANARY}']",
    "SQL": "w'; DROP TABLE losses; --",
    "infinity": "1e999",
    "tower": "9**9**9**9**9",
    "thousands of digits": "9" * 50_000,
    "digits then a letter": "1" * 50_000 + "x",
    "open brackets": "(" * 99_999,
    "zip bomb of brackets": "(" * 9_999 + "w" + ")" * 9_999,
    "open square brackets": "[" * 9_999,
    "calls in calls": "dpo(" * 5_000 + ")" * 5_000,
    "not not not": "not " * 4_000 + "w",
    "tildes": "~" * 9_998 + "w",
    "minuses": "-" * 9_998 + "w",
    "arrows": "w -> " * 4_000 + "=",
    "ten megabytes": "w" * 10_000_000,
    "ten megabytes of brackets": "(" * 10_000_000,
    "ten megabytes of blanks": " " * 10_000_000,
    "a long name": "w" * 99_000,
    "ten thousand atoms": " & ".join(f"y{i}" for i in range(1, 10_001)),
    "ten thousand names": "+".join(f"a{i}" for i in range(10_000)),
    "commas": "," * 9_999,
    "file": "../../../../etc/passwd",
}


@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.parametrize("language", LANGUAGES)
def test_hostile_text_is_one_error(language, name):
    refuse(lambda: LANGUAGES[language](EVERYWHERE[name]))


SPECIAL = {
    "power of a million": ("equation", "w**1000000 / l"),
    "power tower of atoms": ("equation", "w**w**w"),
    "power of a power": ("equation", "(((w/l)**60)**60)**60"),
    "negative power of zero": ("equation", "(w-w)**(-1)"),
    "product of powers": ("equation", "*".join([f"(w+l+rw+rl+{i})**60" for i in range(9)])),
    "division by zero": ("equation", "w/0"),
    "nothing over nothing": ("equation", "(w-w)/(l-l)"),
    "not a number": ("equation", "nan"),
    "infinite": ("equation", "inf*w/l"),
    "complex": ("equation", "1j*w/l"),
    "log of zero": ("equation", "log(w-w)"),
    "quotients": ("equation", "w/" * 30_000 + "l"),
    "common denominators": ("equation", "+".join(f"w/(l+{i})" for i in range(4000))),
    "many probabilities": ("equation", "*".join(f"y{i}" for i in range(1, 60)) + "/w"),
    "sums of products": ("equation", "+".join([f"(w*{i}+l)*(l*{i}+w)" for i in range(2000)]) + "+"),
    "doubling": ("equation", "(1+" * 90 + "w" + ")**2" * 90),
    "atom number": ("formula", "y99999999999999999999"),
    "atom zero": ("formula", "y0"),
    "look-alike atom": ("formula", "M(ԝ)"),
    "beta is infinite": ("loss", "dpo(beta=1e999)"),
    "beta is not a number": ("loss", "dpo(beta=nan)"),
    "beta is huge": ("loss", "dpo(beta=" + "9" * 60 + ")"),
    "beta is text": ("loss", f"dpo(beta='{SYSTEM[:20]}')"),
    "weight is infinite": ("loss", "1e308*1e308*dpo(beta=0.1)"),
    "product of losses": ("loss", "dpo(beta=0.1)*dpo(beta=0.1)"),
    "argument twice": ("loss", "dpo(beta=0.1, beta=0.2)"),
    "dunder argument": ("loss", "dpo(__class__=0.1)"),
    "dunder loss": ("loss", "__init__(beta=0.1)"),
    "robust in robust": ("loss", "robust(" * 2000 + "dpo(beta=0.1)" + ", flip_rate=0.2)" * 2000),
    "system call as a formula": ("loss", f'logic("{SYSTEM}", beta=0.1)'),
    "deep formula in a loss": ("loss", f"logic('{'(' * 5000}', beta=0.1)"),
    "reference in a reference": ("reference", "checkpoint(" * 50 + "a" + ")" * 50),
    "soup of soups": ("reference", "soup(soup(a, b), c)"),
    "soup of nothing": ("reference", "soup()"),
    "weights not finite": ("reference", "soup(a, b, weights=[nan, 1])"),
    "weights overflow": ("reference", "soup(a, b, weights=[1e308, 1e308])"),
    "memory of the past": ("reference", "past(keep=9e999)"),
    "alpha is huge": ("reference", "moving_average(alpha=1e300)"),
    "module": ("reference", "prefalign.references:os"),
    "spec of itself": ("specification", f"not {'(' * 5000}monotone"),
    "spec of a million atoms": ("specification", "atoms y1, y1000000"),
    "spec that contradicts": ("specification", "between unCPO and cpo and not cpo; above unCPO; row TF = x"),
    "spec of an equation": ("specification", f"between '{SYSTEM[:12]}' and cpo"),
    "negative literals": ("specification", "max literals -1"),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_a_trap_of_one_language_is_one_error(name):
    language, text = SPECIAL[name]
    refuse(lambda: LANGUAGES[language](text))


@pytest.mark.parametrize("value", [None, 7, b"w", ["w"], {"w": 1}, float("nan"), object], ids=repr)
@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_no_text_is_one_error(language, value):
    refuse(lambda: LANGUAGES[language](value))
