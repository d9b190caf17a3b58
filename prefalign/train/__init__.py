"""Training: the arguments, the trainer, and what is watched."""

from ._estimate import estimate_for_model as estimate_for_model
from ._recipe import DataArguments as DataArguments
from ._recipe import add_training_arguments as add_training_arguments
from ._recipe import read_options as read_options
from ._recipe import run_training as run_training
from ._trainer import PrefTrainer as PrefTrainer
from ._trl import Forward as Forward
from ._trl import plain_forward as plain_forward
from .checkpoints._record import RUN_FILE as RUN_FILE
from .checkpoints._whole import check_output_dir as check_output_dir
from .checkpoints._whole import find_checkpoint as find_checkpoint
from .checkpoints._whole import last_whole_checkpoint as last_whole_checkpoint
from .config._checks import check_names as check_names
from .config._config import PrefConfig as PrefConfig
from .config._generation import GenerationOptions as GenerationOptions
from .config._needs import check_vocabulary as check_vocabulary
from .conversion import DIALECTS as DIALECTS
from .conversion import convert_recipe as convert_recipe
from .generation._generators import TransformersGenerator as TransformersGenerator
from .generation._generators import VLLMGenerator as VLLMGenerator
from .generation._sampling import Generator as Generator
from .generation._sampling import Request as Request
from .generation._sampling import Sampling as Sampling
from .setup._policy import embedding_rows as embedding_rows
