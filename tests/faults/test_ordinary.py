"""The speed of the ordinary: a help page comes at once, and a stream does not fill the memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import tracemalloc

from datasets import IterableDataset

from prefalign.data import check_pairs


def test_help_takes_less_than_half_a_second():
    # Of the processor: a busy machine's clock would blame the wrong one.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    page = subprocess.run([sys.executable, "-m", "prefalign", "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "compare" in page.stdout
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 0.5


def test_a_stream_four_times_as_long_takes_the_same_memory():
    def pairs(count):
        for number in range(count):
            yield {name: f"{name} {number}" + "x" * 2000 for name in ("prompt", "chosen", "rejected")}

    def peak(count):
        stream = IterableDataset.from_generator(pairs, gen_kwargs={"count": count})
        tracemalloc.start()
        try:
            assert check_pairs(stream, limit=count, progress=False).rows == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # what is loaded once
    # A thousand rows are read at a time. The longer one has 54 MB of text more, and some numbers per row are kept.
    assert peak(12_000) - peak(3_000) < 2_000_000
