"""The estimate beside what a run takes: processor time of each step and the peak of memory, on a CPU.

python benchmarks/estimate.py --model HuggingFaceTB/SmolLM2-135M-Instruct [--plain]
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback

from prefalign import PrefConfig, PrefTrainer

WORDS = "the a film was good bad slow long bright story actor scene music plot end start made me think that it is not"


class Meter(TrainerCallback):
    """Prints what each step took."""

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.start = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"step {state.global_step}: {time.process_time() - self.start:.2f} s, peak {peak:.2f} GB", flush=True)


def main() -> None:
    """Train three steps of two pairs, prompts of 128 words and completions of 128; the first one checks the forward."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--plain", action="store_true", help="without the shared prefix")
    options = parser.parse_args()
    draw = random.Random(0)

    def text() -> str:
        return " ".join(draw.choice(WORDS.split()) for _ in range(128))

    rows = [{"prompt": text() + ":", "chosen": " " + text(), "rejected": " " + text()} for _ in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        args = PrefConfig(
            folder,
            max_steps=3,
            per_device_train_batch_size=2,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            logging_steps=3,
            shared_prefix=not options.plain,
            reference_cache="off",
        )
        trainer = PrefTrainer(options.model, args=args, train_dataset=Dataset.from_list(rows), callbacks=[Meter()])
        trainer.train()


if __name__ == "__main__":
    main()
