"""Training: the arguments, the trainer, and what is watched."""

from ._config import PrefConfig as PrefConfig
from ._estimate import estimate_for_model as estimate_for_model
from ._generation import GenerationOptions as GenerationOptions
from ._generation import Generator as Generator
from ._generation import Request as Request
from ._generation import Sampling as Sampling
from ._generation import TransformersGenerator as TransformersGenerator
from ._guard import last_whole_checkpoint as last_whole_checkpoint
from ._options import check_names as check_names
from ._record import RUN_FILE as RUN_FILE
from ._trainer import PrefTrainer as PrefTrainer
from ._trl import Forward as Forward
from ._trl import plain_forward as plain_forward
from ._vllm import VLLMGenerator as VLLMGenerator
from ._whole import check_output_dir as check_output_dir
from ._whole import find_checkpoint as find_checkpoint
