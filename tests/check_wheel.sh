#!/bin/sh
# Build the sdist, the wheel from the sdist, unpack the wheel in an empty folder, and use it from there: with everything
# in the environment at $BIN, and without torch in a clean environment of every Python in $PYTHONS that is installed.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$(pwd)
"$BIN/python" -m build --quiet --outdir "$work/dist" .
"$BIN/python" -m twine check --strict "$work"/dist/*
"$BIN/python" -m pip --disable-pip-version-check install --quiet --no-deps --target "$work/site" "$work"/dist/*.whl
cd "$work"
PYTHONPATH="$work/site" "$BIN/python" - "$work" <<'PY'
import pathlib, sys
import prefalign, prefalign.logic
home = pathlib.Path(sys.argv[1]).resolve()
for module in (prefalign, prefalign.logic):
    assert home in pathlib.Path(module.__file__).resolve().parents, module.__file__
assert "torch" not in sys.modules
PY
PYTHONPATH="$work/site" "$BIN/python" -m prefalign --help >/dev/null
PYTHONPATH="$work/site" "$work/site/bin/prefalign" --help >/dev/null
echo "wheel ok"

# The parts that need no torch, where nothing but what they need is installed: the logic, and the commands over it.
for python in ${PYTHONS:-}; do
    "$python" -c '' 2>/dev/null || { echo "wheel: no $python here"; continue; }
    rm -rf "$work/venv"
    "$python" -m venv "$work/venv"
    new="$work/venv/bin"
    "$new/python" -m pip --disable-pip-version-check install --quiet -c "$root/constraints.txt" numpy pyyaml sympy tqdm
    "$new/python" -m pip --disable-pip-version-check install --quiet --no-deps "$work"/dist/*.whl
    "$new/python" - "$root" <<'PY'
import compileall, importlib.util, pathlib, sys
import prefalign
home = pathlib.Path(prefalign.__file__).parent
assert home.parent.name == "site-packages" and pathlib.Path(sys.argv[1]) not in home.parents, home
assert importlib.util.find_spec("torch") is None
assert compileall.compile_dir(home, quiet=1, force=True), "a module is no Python of this version"
from prefalign.logic import Lattice, PreferenceStructure, count, derive, equivalent
assert derive("w*(1-l)/(l*(1-w))") == PreferenceStructure.from_rows("ovxo", atoms=("w", "l"))
assert equivalent(derive("orpo"), derive("w*(1-l)/(l*(1-w))"))
assert count("monotone ratio; distinct ratio; survives sum contrast") == 10
assert len(Lattice(["cpo", "orpo", "unCPO"]).edges) == 2
PY
    "$new/prefalign" --help >/dev/null
    "$new/prefalign" derive "w*(1-l)/(l*(1-w))" >/dev/null
    "$new/prefalign" explain orpo >/dev/null
    "$new/prefalign" compare orpo cpo unCPO >/dev/null
    "$new/prefalign" generate "monotone ratio; distinct ratio; survives sum contrast" --top 2 >/dev/null
    "$new/prefalign" lattice orpo cpo unCPO >/dev/null
    echo "wheel without torch ok: $("$new/python" --version)"
done
