"""What `prefalign demo` and examples/make_pairs.py share: the model, its samples, their gold scores, the run."""

from ..diagnose._gold import SAMPLING as SAMPLING
from ..diagnose._gold import gold_rewards as gold_rewards
from ..diagnose._gold import load as load
from ..diagnose._gold import sample as sample
from ._model import model_path as model_path
from ._run import run_demo as run_demo
from ._settings import Settings as Settings
