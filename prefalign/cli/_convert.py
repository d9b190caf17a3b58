"""`prefalign convert RECIPE`: a recipe of another trainer for `prefalign train`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .._errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from ..train import DIALECTS

    parser.add_argument("recipe", metavar="RECIPE", help="YAML file of TRL, alignment-handbook, Axolotl, LLaMA-Factory")
    parser.add_argument("--from", dest="dialect", choices=list(DIALECTS), help="whose it is (default: by its options)")
    parser.add_argument("-o", "--out", metavar="FILE", help="new file for the result (default: print it)")


def run(args: argparse.Namespace) -> int:
    """Print or write the YAML; what was decided, and what could not be translated, goes to stderr."""
    from .._files import new_file
    from .._yaml import read_mapping
    from ..train import DIALECTS, add_training_arguments, convert_recipe

    options = argparse.ArgumentParser()
    add_training_arguments(options)
    known = options.get_default("actions")
    recipe = read_mapping(args.recipe, "RECIPE", "The recipe")
    if args.out is not None and Path(args.out).exists():
        raise ConfigError(f"`--out` must be a new file, but {args.out!r} exists. Choose another one or delete it.")
    dialect, made = convert_recipe(recipe, known, args.dialect, Path(args.recipe).parent)
    text = made.as_yaml(DIALECTS[dialect])
    if args.out is None:
        print(text, end="")
    else:
        with new_file(Path(args.out)) as partial:
            partial.write_text(text, "utf-8")
    for heading, lines in (("Decided:", made.notes), ("Not converted:", made.left)):
        if lines:
            print("\n".join([heading, *(f"  - {line}" for line in lines)]), file=sys.stderr)
    return 0
