"""What importing the logic costs, and the doctests of its modules."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest
import sympy

import prefalign
import prefalign.logic as logic

MODULES = sorted(module.name for module in pkgutil.walk_packages(logic.__path__, "prefalign.logic."))
PUBLIC = {name: getattr(logic, name) for name in dir(logic)} | {"log": sympy.log}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_are_true(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, globs={**PUBLIC, **vars(module)})
    assert not failed


def test_tab_completion_offers_what_is_public_and_nothing_else():
    assert {name for name in dir(logic) if not name.startswith("_")} == {*logic.__all__, "derive"}


def test_a_star_import_does_not_hide_the_derive_that_reads_code():
    names = {}
    exec("from prefalign import derive\nfrom prefalign.logic import *", names)
    assert names["derive"] is prefalign.derive
    assert names["generate_masks"] is logic.generate_masks


@pytest.mark.parametrize("heavy", ["torch", "matplotlib", "numpy", "dd"])
def test_importing_the_logic_loads_nothing_heavy(heavy):
    code = f"import sys, prefalign.logic; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
