"""Training: the arguments, the trainer, and what is watched."""

from ._config import PrefConfig as PrefConfig
from ._options import check_names as check_names
from ._record import RUN_FILE as RUN_FILE
from ._trainer import PrefTrainer as PrefTrainer
