"""What a run will cost, said before it starts: tokens, unique tokens, the shared prefix's speed-up, memory.

Work counts the matrix products of the layers and of the language-model head, as in docs/batches.md: attention and
everything that waits for memory are left out. Memory counts weights, gradients, the optimizer's state, what a
micro-batch keeps for its backward pass, and the head's logits; not the working space of single operations.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._sizes import Division, Micro, PairSizes, divide

_GB = 1e9
# Columns of the vocabulary that TRL's head has at a time, and how many such tables.
_TILE, _TABLES = 32768, 2
# Words of the optimizer's state per trained weight, by the start of its name in transformers.
_OPTIMIZER_WORDS = {"sgd": 0.0, "adafactor": 0.0, "lion": 1.0, "rmsprop": 1.0, "adagrad": 1.0}


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a causal language model that work and memory follow from.

    Args:
        weights: All of them, once where the head shares the embedding's.
        trained: Those that are trained.
        backbone: Those in the layers' matrix products, for a token: of a mixture of experts the active ones.
        hidden, vocabulary: The head's two sides.
        kept: Numbers per token that the layers keep for the backward pass.
        layers: How many.
        itemsize: Bytes of a weight.
    """

    weights: int
    trained: int
    backbone: int
    hidden: int
    vocabulary: int
    kept: int
    layers: int
    itemsize: int


@dataclass(frozen=True)
class Way:
    """How a run computes.

    Args:
        division: How pairs come in micro-batches.
        packed: Whether the shared-prefix forward is on.
        reference: Whether the reference's forward runs in every step.
        reference_weights: Weights that the reference holds beside the policy's.
        checkpointing: Whether activations are computed again.
        half: Whether the layers compute with two bytes.
        compact: Whether TRL's own head leaves out what is not scored: where Triton is.
        keeps_logits: Whether the shared-prefix forward keeps its logits: on a CPU.
        optimizer: Its name in transformers.
    """

    division: Division
    packed: bool
    reference: bool = True
    reference_weights: int = 0
    checkpointing: bool = False
    half: bool = False
    compact: bool = True
    keeps_logits: bool = False
    optimizer: str = "adamw_torch"


@dataclass(frozen=True)
class Estimate:
    """What a run will cost; `print(estimate)` shows it, `estimate.to_json()` is made of plain values.

    Args:
        rows: Pairs of the data set.
        sizes: The sampled ones.
        way: How the run computes.
        micro: What its micro-batches hold.
        shape: The model's; None if it is not known.
    """

    rows: int
    sizes: PairSizes
    way: Way
    micro: Micro
    shape: ModelShape | None

    @property
    def tokens(self) -> dict[str, int]:
        """Of one epoch: without padding, with it, and with common prefixes counted once; and those that are scored."""
        sizes = self.sizes
        each = {
            "tokens": float((sizes.chosen + sizes.rejected).mean()),
            "padded_positions": self.micro.padded,
            "unique_tokens": float(sizes.unique.mean()),
            "scored_tokens": float(sizes.scored.mean()),
            "unique_scored_tokens": float(sizes.scored_once.mean()),
        }
        return {name: round(value * self.rows) for name, value in each.items()}

    @property
    def speedup(self) -> float | None:
        """Work of the plain forward over that of the shared-prefix one, whether that is on or not."""
        if self.shape is None:
            return None
        return self.work(packed=False) / self.work(packed=True)

    def work(self, packed: bool) -> float:
        """Matrix products of a pair's step, with the shared prefix or without, in FLOPs; 0 without a model."""
        shape, way, sizes = self.shape, self.way, self.sizes
        if shape is None:
            return 0.0
        whole = shape.trained > shape.weights / 2
        # Forward, gradient of the states, and of the weights if they are trained; the head computes its logits twice.
        passes = 2 + whole + way.checkpointing + way.reference
        head = 3 + whole + way.reference - (packed and way.keeps_logits)
        positions = float(sizes.unique.mean()) if packed else self.micro.padded
        rows = float(sizes.scored_once.mean()) if packed else float(sizes.scored.mean()) if way.compact else positions
        return 2.0 * shape.backbone * positions * passes + 2.0 * shape.hidden * shape.vocabulary * rows * head

    @property
    def memory(self) -> dict[str, float] | None:
        """Bytes on one process, unsharded, the largest micro-batch that was drawn among them; None without a model."""
        shape, way = self.shape, self.way
        if shape is None:
            return None
        words = next((n for name, n in _OPTIMIZER_WORDS.items() if way.optimizer.startswith(name)), 2.0)
        state = 1 if "8bit" in way.optimizer else shape.itemsize
        return {
            "weights": float(shape.weights * shape.itemsize),
            "reference": float(way.reference_weights * shape.itemsize),
            "gradients": float(shape.trained * shape.itemsize),
            "optimizer": shape.trained * state * words,
            "micro_batch": self._micro_batch(way.packed),
            "micro_batch_plain": self._micro_batch(False),
        }

    def _micro_batch(self, packed: bool) -> float:
        shape, way, micro = self.shape, self.way, self.micro
        assert shape is not None
        size = 2 if way.half else shape.itemsize
        positions = micro.largest_unique if packed else micro.largest_padded
        # With checkpointing each layer keeps its input, and one layer at a time the rest.
        kept = shape.kept if not way.checkpointing else shape.layers * shape.hidden + shape.kept // shape.layers
        rows = micro.largest_scored if packed or way.compact else positions
        whole = packed and way.keeps_logits
        columns = shape.vocabulary if whole else min(shape.vocabulary, _TILE)
        tables = 1 if whole else _TABLES
        return float(positions * kept * size + rows * columns * tables * (size if whole else 4))

    def to_json(self) -> dict[str, object]:
        """The estimate in values that `json.dumps` takes; bytes, and tokens of one epoch."""
        return {
            "rows": self.rows,
            "sampled": len(self.sizes.chosen),
            "pairs_per_micro_batch": self.way.division.pairs,
            **self.tokens,
            "micro_batches_per_step": round(self.micro.per_step, 2),
            "shared_prefix": self.way.packed,
            "speedup": None if self.speedup is None else round(self.speedup, 3),
            "memory": self.memory,
        }

    def __str__(self) -> str:
        tokens, way = self.tokens, self.way
        sampled = len(self.sizes.chosen)
        source = "all" if sampled >= self.rows else f"a sample of {sampled:,}"
        ratio = tokens["padded_positions"] / max(1, tokens["unique_tokens"])
        division = way.division
        batch = f"{division.pairs} pairs" if division.tokens is None else f"at most {division.tokens:,} tokens"
        lines = [
            f"Estimate for {self.rows:,} pairs (from {source}), in micro-batches of {batch}:",
            f"  an epoch: {_count(tokens['tokens'])} tokens, {_count(tokens['padded_positions'])} positions with "
            f"padding, {_count(tokens['unique_tokens'])} unique tokens ({ratio:.2f} positions per unique token)",
        ]
        if self.speedup is not None:
            state = "" if way.packed else "; it is off"
            lines.append(f"  expected speed-up of the shared prefix over the plain forward: {self.speedup:.2f}x{state}")
        memory = self.memory
        if memory is not None:
            fixed = ", ".join(f"{n} {_size(memory[n])}" for n in ("weights", "reference", "gradients", "optimizer"))
            plain = f" (plain forward: {_size(memory['micro_batch_plain'])})" if way.packed else ""
            lines.append(f"  memory: {fixed}; the largest micro-batch about {_size(memory['micro_batch'])}{plain}")
        return "\n".join(lines)


def _count(number: float) -> str:
    for unit, name in ((1e9, " G"), (1e6, " M")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:,.0f}"


def _size(number: float) -> str:
    return f"{number / _GB:.2f} GB" if number >= _GB / 10 else f"{number / 1e6:.3g} MB"


def estimate(rows: int, sizes: PairSizes, way: Way, shape: ModelShape | None = None) -> Estimate:
    """Put an estimate together.

    Args:
        rows: Pairs of the data set.
        sizes: A sample of them, at least one.
        way: How the run computes.
        shape: The model's, if it is known.
    """
    return Estimate(rows, sizes, way, divide(sizes, way.division), shape)
