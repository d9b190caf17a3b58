"""What decides the demo's result, and the folder that keeps a run, so that it can be stopped and resumed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from .._errors import ConfigError, DataError
from ..references import write_json

BATCH = 8
_SETTINGS = "demo.json"


@dataclass(frozen=True)
class Settings:
    """The demo's settings.

    Args:
        model: Checkpoint folder or Hub id; None is SmolLM2-135M-Instruct.
        loss: A loss expression.
        flip_rate: Share of labels that are turned wrong, in [0, 0.5).
        steps: Optimizer steps of 8 pairs, >= 1.
        learning_rate: Its peak, > 0.
        samples: Samples of each held-out prompt, >= 1.
        heldout: How many of the held-out prompts are used, >= 2; None is all.
        seed: Of the flips, the training and the samples.

    Raises:
        ConfigError: a number is out of range.
    """

    model: str | None
    loss: str
    flip_rate: float
    steps: int
    learning_rate: float
    samples: int
    heldout: int | None
    seed: int

    def __post_init__(self) -> None:
        least = {"steps": 1, "samples": 1, "heldout": 2, "seed": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"`--{name}` must be at least {low} (got {value}).")
        if not 0 < self.learning_rate < 1:
            raise ConfigError(f"`--learning-rate` must be in (0, 1) (got {self.learning_rate:g}).")
        if not 0 <= self.flip_rate < 0.5:
            raise ConfigError(
                f"`--flip-rate` must be in [0, 0.5) (got {self.flip_rate:g}). "
                "Labels half of which are wrong say nothing."
            )


def data_folder(given: Path | None) -> Path:
    """The folder with reviews_train.jsonl and reviews_heldout.jsonl.

    Raises:
        DataError: it is not there.
    """
    places = [given] if given is not None else [Path("examples/data"), Path(__file__).parents[2] / "examples/data"]
    for place in places:
        if (place / "reviews_train.jsonl").is_file() and (place / "reviews_heldout.jsonl").is_file():
            return place
    raise DataError(
        f"`--data` must be a folder with reviews_train.jsonl and reviews_heldout.jsonl (looked in {places[0]}). "
        "They are in examples/data of the repository; examples/make_pairs.py made them."
    )


def prepare_run(out: Path, settings: Settings, data: Path, fresh: bool) -> None:
    """Make `out`, or take up the run of the same settings that it holds.

    Raises:
        ConfigError: `out` holds another run, or something else.
    """
    record = dataclasses.asdict(settings)
    record["data"] = {
        name: hashlib.sha256((data / name).read_bytes()).hexdigest()
        for name in ("reviews_train.jsonl", "reviews_heldout.jsonl")
    }
    mark = out / _SETTINGS
    if out.exists() and not mark.is_file() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"`--out` must be a new folder or one with an earlier demo in it (got {out}).")
    if mark.is_file() and fresh:
        shutil.rmtree(out)
    if mark.is_file() and json.loads(mark.read_text("utf-8")) != json.loads(json.dumps(record)):
        raise ConfigError(
            f"{out} holds a demo with other settings or data. Choose another folder with --out, or add --fresh to "
            "forget the earlier run."
        )
    write_json(mark, record)
