"""Soups of checkpoints and adapters: recipes, methods, held-out losses and landscapes."""

from ._recipe import Recipe as Recipe
from ._recipe import check_weights as check_weights
from ._recipe import write_soup as write_soup
