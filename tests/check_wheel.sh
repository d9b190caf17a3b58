#!/bin/sh
# Build the sdist, the wheel from the sdist, unpack the wheel in an empty folder, and use it from there.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
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
