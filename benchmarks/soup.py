"""Time and memory of the average of two models: `prefalign soup`, a plain copy on the same disk, and mergekit's linear.

Run: python benchmarks/soup.py [--size 1.1] [--dtype bfloat16] [--rounds 5] [--folder .] [--cold] [--mergekit FILE]

The models are random Llamas of `--size` GB each, made in `--folder` and removed afterwards. Rounds are interleaved and
medians printed. Every time ends when the bytes are on the disk (fsync; for mergekit, which does not, `sync` follows).
"speed" is bytes read plus bytes written a second: a copy of one model reads it and writes it, an average of two reads
two and writes one. All start alike: with the models in the system's cache, as far as it holds them, or with `--cold`
after they were dropped from it (which is advice to the system: see whether the copy became slower). The copy is
Python's `shutil.copyfile`, for which Linux moves the bytes within the kernel. `prefalign (call)` is the call of `soup`
alone, as a copy has no imports either; the rows `(process)` are whole processes. "processor" is user and system time,
which other programs on the machine disturb less than they disturb the clock. Peak memory is the process's resident set,
pages of memory mapped files included. `--mergekit` takes the path of `mergekit-yaml`, from an environment of its own
(`pip install mergekit` there).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

BYTES = {"bfloat16": (2, "BF16"), "float32": (4, "F32")}
HIDDEN, INNER, VOCABULARY = 2048, 5632, 32000


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a Llama."""
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for layer in range(layers):
        name = f"model.layers.{layer}"
        for part in "qkvo":
            found[f"{name}.self_attn.{part}_proj.weight"] = (HIDDEN, HIDDEN)
        for part, shape in (("gate", (INNER, HIDDEN)), ("up", (INNER, HIDDEN)), ("down", (HIDDEN, INNER))):
            found[f"{name}.mlp.{part}_proj.weight"] = shape
        for part in ("input_layernorm", "post_attention_layernorm"):
            found[f"{name}.{part}.weight"] = (HIDDEN,)
    return found


def make_model(folder: Path, layers: int, dtype: str, seed: int) -> int:
    """Write a random model; its size in bytes."""
    width, code = BYTES[dtype]
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": layers, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": VOCABULARY,
        "tie_word_embeddings": True, "dtype": dtype, "rms_norm_eps": 1e-5, "max_position_embeddings": 2048,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    header, position = {}, 0
    for name, shape in sorted(shapes(layers).items()):
        size = int(np.prod(shape)) * width
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(seed)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        left = position
        while left:
            numbers = rng.standard_normal(min(left // width, 1 << 22), dtype=np.float32)
            piece = numbers if width == 4 else (numbers.view(np.uint32) >> 16).astype(np.uint16)
            file.write(piece.tobytes())
            left -= piece.nbytes
        file.flush()
        os.fsync(file.fileno())
    return position


def drop(files: list[Path]) -> None:
    """Ask the system to forget what it holds of files; nothing of theirs may wait to be written."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of the processor."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - busy


def run(*words: str) -> tuple[float, float, int, str]:
    """A process: its seconds by the clock and of the processor, its peak memory in bytes, its output."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        if status:
            errors.seek(0)
            raise SystemExit(f"{words[0]} failed with status {status}:\n{errors.read()[-2000:]}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output


def copy(source: Path, target: Path) -> None:
    """Copy a file to the disk."""
    shutil.copyfile(source, target)
    descriptor = os.open(target, os.O_RDWR)
    os.fsync(descriptor)
    os.close(descriptor)


CALL = (
    "import sys, time; from prefalign.references import soup; start, busy = time.perf_counter(), time.process_time();"
    "soup(sys.argv[1:3], out=sys.argv[3], progress=False);"
    "print(time.perf_counter() - start, time.process_time() - busy)"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=float, default=1.1, help="GB of one model")
    parser.add_argument("--dtype", choices=sorted(BYTES), default="bfloat16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--cold", action="store_true", help="read the models from the disk, not from the cache")
    parser.add_argument("--mergekit", help="path of mergekit-yaml")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="soup-benchmark-") as name:
        folder = Path(name).absolute()  # mergekit takes other names for Hub ids
        per_layer = sum(int(np.prod(s)) for n, s in shapes(1).items() if ".0." in n) * BYTES[args.dtype][0]
        rest = VOCABULARY * HIDDEN * BYTES[args.dtype][0]
        layers = max(1, round((args.size * 1e9 - rest) / per_layer))
        total, _ = (make_model(folder / part, layers, args.dtype, seed) for seed, part in enumerate("ab"))
        largest = max(int(np.prod(shape)) for shape in shapes(layers).values()) * BYTES[args.dtype][0]
        models = [str(folder / "a"), str(folder / "b")]
        recipe = folder / "recipe.yml"
        entries = "".join(f"  - model: {model}\n    parameters: {{weight: 0.5}}\n" for model in models)
        recipe.write_text(f"merge_method: linear\nmodels:\n{entries}dtype: {args.dtype}\n")
        seconds: dict[str, list[tuple[float, float]]] = {}
        peaks: dict[str, int] = {}
        sources = [folder / part / "model.safetensors" for part in "ab"] if args.cold else []
        for _ in range(args.rounds):
            os.sync()
            drop(sources)
            source, target, out = folder / "a" / "model.safetensors", folder / "copy", str(folder / "out")
            seconds.setdefault("copy", []).append(timed(lambda s=source, t=target: copy(s, t)))
            target.unlink()
            drop(sources)
            took, busy, peak, output = run(sys.executable, "-c", CALL, *models, out)
            call, call_busy = map(float, output.split())
            seconds.setdefault("prefalign (call)", []).append((call, call_busy))
            seconds.setdefault("prefalign (process)", []).append((took, busy))
            peaks["prefalign (process)"] = max(peak, peaks.get("prefalign (process)", 0))
            shutil.rmtree(out)
            if args.mergekit:
                drop(sources)
                took, busy, peak, _ = run(args.mergekit, str(recipe), out, "--no-copy-tokenizer")
                seconds.setdefault("mergekit (process)", []).append((took + timed(os.sync)[0], busy))
                peaks["mergekit (process)"] = max(peak, peaks.get("mergekit (process)", 0))
                shutil.rmtree(out)
        start = "cold" if args.cold else "warm"
        print(f"two {args.dtype} models of {total / 1e9:.2f} GB, {start}, {args.rounds} rounds, {os.cpu_count()} cores")
        speed = {}
        for row, values in seconds.items():
            clock = statistics.median(value[0] for value in values)
            busy = statistics.median(value[1] for value in values)
            speed[row] = (2 if row == "copy" else 3) * total / clock / 1e9
            memory = f"{peaks[row] / 1e6:8.0f} MB" if row in peaks else ""
            print(f"{row:20} {clock:7.2f} s  {busy:7.2f} s of the processor  {speed[row]:6.2f} GB/s  {memory}")
        print(f"soup over copy, speed: {speed['prefalign (call)'] / speed['copy']:.2f}")
        print(f"memory allowed by the promise: {(4 * largest + 300e6) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
