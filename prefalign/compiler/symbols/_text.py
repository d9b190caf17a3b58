"""Formulas of links, weights and guards as text: what SymPy prints is read back. It is parsed, never evaluated."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import sympy as sp
from sympy.core.parameters import distribute

from ..._errors import ParseError
from ._symbols import number

_FROZEN, _ASCII = "°", "__detached"
_LONGEST, _LARGEST = 4000, 64
_CALLS: dict[str, Callable[..., Any]] = {
    "exp": sp.exp,
    "log": sp.log,
    "sqrt": sp.sqrt,
    "Abs": sp.Abs,
    "Max": sp.Max,
    "Min": sp.Min,
    "sin": sp.sin,
    "cos": sp.cos,
    "atan": sp.atan,
    "erf": sp.erf,
}
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: _power(a, b),
}
_COMPARISONS = {ast.Gt: sp.Gt, ast.GtE: sp.Ge, ast.Lt: sp.Lt, ast.LtE: sp.Le}


def formula_of(text: str) -> sp.Basic:
    """The SymPy expression or condition that `text` is.

    Args:
        text: Numbers, names (`W°` is `W` detached), + - * / **, exp, log, sqrt, Abs, Max, Min, sin, cos, atan, erf,
            Piecewise((value, condition), …), comparisons, & and |.

    Raises:
        ParseError: Anything else.
    """
    plain = text.strip().replace(_FROZEN, _ASCII)
    if len(plain) > _LONGEST:
        raise ParseError(f"A formula may have {_LONGEST} characters at most (got {len(plain)}).", text, 0)
    try:
        with distribute(False):  # as SymPy means what it prints
            return _read(ast.parse(plain, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError, TypeError) as error:
        raise ParseError(f"This is no formula: {error}.", text, 0) from None


def _power(base: sp.Basic, exponent: sp.Basic) -> sp.Basic:
    if base.is_number and exponent.is_number and (abs(exponent) > _LARGEST or len(str(base)) > _LARGEST):
        raise ValueError(f"a power of numbers may have an exponent of {_LARGEST} at most (got {exponent})")
    return base**exponent


def _read(node: ast.expr) -> sp.Basic:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return sp.true if node.value is True else sp.false if node.value is False else number(node.value)
    if isinstance(node, ast.Name):
        return sp.Symbol(node.id.replace(_ASCII, _FROZEN))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return -_read(node.operand) if isinstance(node.op, ast.USub) else _read(node.operand)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        return sp.Not(_read(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_read(node.left), _read(node.right))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
        return (sp.And if isinstance(node.op, ast.BitAnd) else sp.Or)(_read(node.left), _read(node.right))
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        return _COMPARISONS[type(node.ops[0])](_read(node.left), _read(node.comparators[0]), evaluate=False)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        if node.func.id == "Piecewise":
            cases = [case.elts for case in node.args if isinstance(case, ast.Tuple) and len(case.elts) == 2]
            if len(cases) == len(node.args):
                return sp.Piecewise(*((_read(value), _read(where)) for value, where in cases))
        elif node.func.id in _CALLS:
            return _CALLS[node.func.id](*map(_read, node.args))
    raise ValueError(f"`{ast.unparse(node)[:80]}` cannot stand in it")
