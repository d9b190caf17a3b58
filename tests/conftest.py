"""Every test runs offline, on the CPU, on one thread a process, with telemetry off."""

import os
import signal
import threading

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
