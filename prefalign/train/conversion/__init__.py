"""Recipes of TRL, the alignment handbook, Axolotl and LLaMA-Factory, translated."""

from ._convert import DIALECTS as DIALECTS
from ._convert import convert_recipe as convert_recipe
from ._translation import Translation as Translation
