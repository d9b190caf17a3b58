"""What `prefalign demo` and examples/make_pairs.py share: the model, its samples, their gold scores, the run."""

from ._model import SAMPLING as SAMPLING
from ._model import model_path as model_path
from ._run import run_demo as run_demo
from ._sampling import gold_rewards as gold_rewards
from ._sampling import load as load
from ._sampling import sample as sample
from ._settings import Settings as Settings
