"""What the logic costs, and what plain SymPy takes for the same: `python benchmarks/logic.py`.

Prints one line per measurement: the time, the bound it must keep, and the ratio to SymPy's own functions.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import sympy
from sympy.core.cache import clear_cache

from prefalign.logic import Lattice, PreferenceStructure, catalogue, compare, derive, entails, parse_formula
from prefalign.logic.tables._minimise import shortest


def best(call: Callable[[], object], repeat: int = 5) -> float:
    """The shortest of several runs, in seconds."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def line(what: str, seconds: float, bound: float | None, plain: float | None, note: str) -> bool:
    """Print a measurement; whether it keeps its bound."""
    kept = bound is None or seconds < bound
    limit = "" if bound is None else f"  bound {bound * 1e3:8.1f} ms  {'kept' if kept else 'MISSED'}"
    ratio = "" if plain is None else f"  SymPy {plain * 1e3:10.2f} ms ({plain / seconds:,.0f}x): {note}"
    print(f"{what:42} {seconds * 1e3:10.4f} ms{limit}{ratio}", flush=True)
    return kept


def sixty() -> list[str]:
    """Sixty equations: the sixteen, their reference forms, and 28 more structures over w and l."""
    named = [entry.equation for entry in catalogue.table]
    columns = ("".join(letters) for letters in itertools.product("vxbo", repeat=4))
    useful = (PreferenceStructure.from_rows(column) for column in columns if {"v", "x"} <= set(column))
    more = [f"({s.top})/({s.bottom})" for s in itertools.islice(useful, 0, 84, 3)]
    return [*named, *(f"{equation}*rl/rw" for equation in named), *more]


def table_of_sixty() -> float:
    """Derive, compare and order sixty losses, once: derivations are cached."""
    equations = sixty()
    assert len(equations) == 60
    start = time.perf_counter()
    structures = [derive(equation) for equation in equations]
    compare(*structures).matrix  # noqa: B018  (computing it is the point)
    Lattice(dict(zip(equations, structures, strict=True))).edges  # noqa: B018
    return time.perf_counter() - start


def sympy_simplifies_sixty() -> float:
    """What SymPy takes only to simplify B → T, T ∨ B and T ∧ B of the same sixty: no reading, no order."""
    pairs = [(derive(equation).P_f.to_sympy(), derive(equation).N_f.to_sympy()) for equation in sixty()]
    clear_cache()
    start = time.perf_counter()
    for top, bottom in pairs:
        for formula in (sympy.Implies(bottom, top), sympy.Or(top, bottom), sympy.And(top, bottom)):
            sympy.simplify_logic(formula)
    return time.perf_counter() - start


def random_structure(atoms: int, seed: int) -> PreferenceStructure:
    """A structure over y1, y2, ... with random rows."""
    rng = random.Random(seed)
    bits = 1 << atoms
    return PreferenceStructure(
        tuple(f"y{i}" for i in range(1, atoms + 1)), rng.getrandbits(bits), rng.getrandbits(bits)
    )


def weaker(s: PreferenceStructure) -> PreferenceStructure:
    """One that `s` entails, so that no early exit shortens the question."""
    return PreferenceStructure(s.atoms, s.top_mask | s.top_mask >> 1, s.bottom_mask & (s.bottom_mask >> 1))


def entailment(atoms: int, count: int) -> float:
    """Seconds per question whose answer is yes."""
    a = random_structure(atoms, 1)
    b = weaker(a)
    assert entails(a, b)
    return best(lambda: [entails(a, b) for _ in range(count)]) / count


def sympy_entails(atoms: int) -> float:
    """The same question to SymPy's satisfiability, on formulas of as many variables."""
    s = random_structure(atoms, 1)
    top, up = s.P_f.to_sympy(), weaker(s).P_f.to_sympy()
    clear_cache()
    return best(lambda: sympy.satisfiable(sympy.And(top, sympy.Not(up))), repeat=1)


def import_seconds(module: str, folder: str) -> float:
    """CPU seconds, the best of nine imports, each in its own process, with bytecode as when installed."""
    code = f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = folder
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
        for _ in range(9)
    ]
    return min(float(run.stdout) for run in runs)


def main() -> int:
    """Measure everything; 1 if a bound is missed."""
    seconds = table_of_sixty()
    note = "simplify_logic of the 180 formulas alone"
    kept = [line("derive, compare, lattice of 60 losses", seconds, 0.5, sympy_simplifies_sixty(), note)]
    for atoms, count, bound in ((4, 10_000, None), (20, 3, 0.005)):
        plain = sympy_entails(4) if atoms == 4 else None
        kept.append(line(f"entails, {atoms} variables", entailment(atoms, count), bound, plain, "satisfiable"))
    rng = random.Random(3)
    names = [f"y{i}" for i in range(1, 17)]
    clauses = [rng.sample(range(16), 3) for _ in range(12)]
    sixteen, seven = (
        parse_formula(" | ".join("(" + " & ".join(names[i % wrap] for i in clause) + ")" for clause in clauses))
        for wrap in (16, 7)
    )
    mask, small = sixteen.mask(names), seven.to_sympy()
    clear_cache()
    plain = best(lambda: sympy.simplify_logic(small, force=True), repeat=1)
    seconds = best(lambda: shortest(16, mask))
    kept.append(line("shortest formula, 16 variables", seconds, 0.1, plain, "simplify_logic of 7 variables"))
    with tempfile.TemporaryDirectory() as folder:
        whole, alone = import_seconds("prefalign.logic", folder), import_seconds("sympy", folder)
    kept.append(line("import prefalign.logic beyond SymPy", whole - alone, 0.05, alone, "importing SymPy itself"))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
