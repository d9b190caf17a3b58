"""Weights on disk: read, checked, compared, averaged and written without loading a model."""

from ._check import check_files as check_files
from ._check import check_tokenizer as check_tokenizer
from ._ingredients import Ingredient as Ingredient
from ._ingredients import find_ingredients as find_ingredients
from ._lora import CONFIG as CONFIG
from ._lora import WEIGHTS as WEIGHTS
from ._lora import Adapter as Adapter
from ._lora import SummedRank as SummedRank
from ._safetensors import Entry as Entry
from ._safetensors import read_header as read_header
from ._weighted_sum import Coefficients as Coefficients
from ._weighted_sum import one_tensor as one_tensor
from ._weighted_sum import write_blend as write_blend
from ._writer import MAX_SHARD as MAX_SHARD
