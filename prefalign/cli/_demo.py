"""`prefalign demo`: fine-tune a real language model on noisy preferences, and see that it got better."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `prefalign demo`."""
    parser.add_argument("--model", help="checkpoint folder or Hub id (default: SmolLM2-135M-Instruct)")
    parser.add_argument(
        "--loss", default="robust(dpo(beta=0.1), flip_rate=0.3)", help="loss expression (default: %(default)s)"
    )
    parser.add_argument("--flip-rate", type=float, default=0.3, help="share of labels turned wrong (default: 0.3)")
    parser.add_argument("--steps", type=int, default=48, help="optimizer steps of 8 pairs (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=2, help="samples of each held-out prompt (default: %(default)s)")
    parser.add_argument("--heldout", type=int, help="held-out prompts (default: all in the file)")
    parser.add_argument("--seed", type=int, default=0, help="of the flips, the training and the samples (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the run (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="folder with reviews_*.jsonl (default: examples/data)")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run left in --out")


def run(args: argparse.Namespace) -> int:
    """Run the demo; started again after an interruption, it goes on where it was."""
    from transformers.utils import logging

    from ..demo import Settings, run_demo

    logging.set_verbosity_error()
    # TRL and peft ask transformers about checkpointing by its old name.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)
    settings = Settings(
        model=args.model,
        loss=args.loss,
        flip_rate=args.flip_rate,
        steps=args.steps,
        learning_rate=args.learning_rate,
        samples=args.samples,
        heldout=args.heldout,
        seed=args.seed,
    )
    try:
        run_demo(settings, out=args.out, data=args.data, fresh=args.fresh)
    except KeyboardInterrupt:
        print("\nRun the same command again to go on from the last checkpoint; --fresh starts anew.", file=sys.stderr)
        raise
    return 0
