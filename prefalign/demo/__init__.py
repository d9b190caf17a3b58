"""The demo: fine-tune a real model on noisy preferences, and measure it before and after."""

from ._model import model_path as model_path
from ._run import run_demo as run_demo
from ._settings import Settings as Settings
