"""From texts to the flip rate: features that batches do not change, a cache that resumes, lists that are reviewed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from prefalign._errors import CheckpointError, DataError
from prefalign.cli import main
from prefalign.diagnose import (
    Noise,
    Repeats,
    count_repeats,
    from_margins,
    list_suspects,
    measure_noise,
    pair_features,
    read_decisions,
    write_suspects,
)
from tests.tiny import save_tiny, tiny_model, tiny_pairs, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("tiny") / "model"))


def mean_state(prompt, completion):
    """The first layer's output, averaged over the completion, by transformers' own means."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer(prompt + completion)["input_ids"]
    with torch.no_grad():
        states = tiny_model().eval()(torch.tensor([ids]), output_hidden_states=True).hidden_states[1]
    return states[0, len(tokenizer(prompt)["input_ids"]) :].mean(dim=0).numpy()


def test_features_are_the_means_of_the_layer_over_the_completion():
    pair = tiny_pairs(1)[0]
    found = pair_features(Dataset.from_list([pair]), tiny_model().eval(), tiny_tokenizer(), layer=1)
    for side, name in enumerate(("chosen", "rejected")):  # a plain text is ended by EOS, as in training
        np.testing.assert_allclose(found[0, side], mean_state(pair["prompt"], pair[name] + "<|im_end|>"), atol=1e-5)


def test_features_do_not_depend_on_the_other_pairs_of_the_batch(folder):
    pairs = tiny_pairs(12)
    together = pair_features(pairs, folder)
    alone = np.concatenate([pair_features(pairs.select([index]), folder) for index in (0, 5, 11)])
    np.testing.assert_allclose(together[[0, 5, 11]], alone, atol=1e-5)


def test_conversations_are_rendered_by_the_template(folder):
    def say(role, text):
        return [{"role": role, "content": text}]

    talk = {"prompt": say("user", "Hi"), "chosen": say("assistant", "a"), "rejected": say("assistant", "bc")}
    found = pair_features(Dataset.from_list([talk]), folder, layer=1)
    start = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    for side, text in enumerate(("a", "bc")):
        np.testing.assert_allclose(found[0, side], mean_state(start, f"{text}<|im_end|>\n"), atol=1e-5)


def test_the_cache_spares_what_was_done(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("prefalign.diagnose._features.BLOCK", 5)
    pairs = tiny_pairs(12)
    first = pair_features(pairs, folder, cache=tmp_path)
    files = sorted(tmp_path.iterdir())
    assert [file.suffix for file in files] == [".safetensors"] * 3
    files[1].write_bytes(b"cut off")  # as by a full disk: made anew
    calls = []
    encode = "prefalign.diagnose._features.Encoder.encode"
    real = pair_features.__globals__["Encoder"].encode
    monkeypatch.setattr(encode, lambda self, rows, bar=None: calls.append(len(rows)) or real(self, rows, bar))
    again = pair_features(pairs, folder, cache=tmp_path)
    assert len(calls) == 1
    np.testing.assert_allclose(again, first, atol=1e-6)
    pair_features(pairs, folder, layer=2, cache=tmp_path)
    assert calls[1:] == [5, 5, 2]  # another layer is another feature


@pytest.mark.parametrize(
    ("options", "kind", "word"),
    [
        ({"layer": 3}, DataError, "between 1 and 2"),
        ({"max_length": 1}, DataError, "max_length"),
        ({"max_length": 4}, DataError, "pair 0: `chosen` has no token"),
    ],
)
def test_features_that_cannot_be_made_are_refused(folder, options, kind, word):
    with pytest.raises(kind, match=word):
        pair_features(tiny_pairs(3), folder, **options)


@pytest.mark.parametrize("layer", [0, 9])
def test_a_layer_that_is_not_there_is_refused_before_the_weights_load(folder, tmp_path, layer):
    (tmp_path / "config.json").write_bytes((Path(folder) / "config.json").read_bytes())  # no weights
    for options, count in (({}, 2), ({"num_hidden_layers": 5}, 5), ({"dtype": "bfloat16", "revision": "main"}, 2)):
        with pytest.raises(DataError, match=f"between 1 and {count}, .* \\(got {layer}\\)"):
            pair_features(tiny_pairs(3), str(tmp_path), layer=layer, model_init_kwargs=options)


def test_a_configuration_that_cannot_be_read_is_left_to_loading(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        pair_features(tiny_pairs(3), str(tmp_path / "nowhere"), layer=1)


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        pair_features(tiny_pairs(3), str(tmp_path / "nowhere"))


def labelled_twice(agreeing, contradicting):
    rows = []
    for index in range(agreeing + contradicting):
        pair = {"prompt": f"p{index}", "chosen": "a", "rejected": "b"}
        other = {**pair, "chosen": "b", "rejected": "a"} if index >= agreeing else pair
        rows += [pair, other]
    return Dataset.from_list(rows)


def test_repeated_labels_are_compared_once_each():
    repeats = count_repeats(labelled_twice(agreeing=68, contradicting=32))
    assert (repeats.agreeing, repeats.compared) == (68, 100)
    assert repeats.rate == pytest.approx(0.2)  # .8^2 + .2^2 = .68
    assert repeats.contradicting[136] == 137
    assert repeats.contradicting[137] == 136
    assert 0 not in repeats.contradicting


def test_copies_without_a_contradiction_are_no_evidence():
    assert count_repeats(labelled_twice(agreeing=50, contradicting=0)) is None


def test_many_repeated_labels_go_before_margins():
    random = np.random.default_rng(0)
    clueless = from_margins(random.normal(size=200))
    assert Noise(clueless, None).taken is None
    rate, _, _, source = Noise(clueless, count_repeats(labelled_twice(68, 32))).taken
    assert rate == pytest.approx(0.2)
    assert "100 repeated labels" in source
    assert Noise(clueless, count_repeats(labelled_twice(7, 3))).taken is None


@pytest.mark.parametrize(
    ("agreeing", "compared", "word"),
    [(505, 1000, "reaches one half"), (70, 99, "fewer than 100"), (68, 100, None), (600, 1000, None)],
)
def test_repeated_labels_say_when_they_cannot_tell(agreeing, compared, word):
    clueless = from_margins(np.random.default_rng(0).normal(size=200))
    noise = Noise(clueless, count_repeats(labelled_twice(agreeing, compared - agreeing)))
    assert (noise.taken is None) == (word is not None)
    assert noise.to_json()["repeats"]["can_tell"] == (word is None)
    assert ("The repeated labels cannot tell" in str(noise)) == (word is not None)
    assert word is None or word in str(noise)


def test_repeated_random_labels_give_a_number_no_more_often_than_the_interval_errs():
    agreeing = np.random.default_rng(0).binomial(400, 0.5, size=2000)  # 48 % agree in more than half
    told = [Repeats(n, 400, {0: 1}).can_tell for n in agreeing]
    assert np.mean(told) < 0.04


def test_an_interval_of_a_hundred_repeated_labels_that_ends_below_one_half_is_narrow():
    every = [Repeats(n, count, {0: 1}) for count in (100, 102, 200) for n in range(count + 1)]
    assert max(one.high - one.low for one in every if one.can_tell) < 0.3


def test_suspects_carry_their_evidence_and_decisions_are_read_back(tmp_path):
    pairs = Dataset.from_list([{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(100)])
    margins = np.where(np.arange(100) == 7, -4.0, 2.0) + np.arange(100) * 1e-3
    suspects = list_suspects(pairs, Noise(from_margins(margins), None), 3, rows=range(10, 110))
    assert suspects[0]["row"] == 17
    assert suspects[0]["prompt"] == "p7"
    assert "prefers `rejected` with probability" in suspects[0]["evidence"]
    suspects[0]["decision"] = "Swap "
    write_suspects(tmp_path / "s.jsonl", suspects)
    assert read_decisions(tmp_path / "s.jsonl") == {17: "swap"}


@pytest.mark.parametrize("line", ["{", "[]", '{"decision": "drop"}', '{"row": 1, "decision": "maybe"}', '{"row": -1}'])
def test_a_damaged_review_is_refused_with_its_line(tmp_path, line):
    (tmp_path / "s.jsonl").write_text(f'{{"row": 0, "decision": ""}}\n{line}\n', "utf-8")
    with pytest.raises(DataError, match="line 2"):
        read_decisions(tmp_path / "s.jsonl")


def test_too_few_pairs_are_refused_before_the_model_loads(tmp_path):
    with pytest.raises(DataError, match="fewer than 50"):
        measure_noise(tiny_pairs(49), str(tmp_path / "nowhere"))


FLIPPED = frozenset(np.random.default_rng(1).permutation(400)[:80].tolist())


@pytest.fixture(scope="module")
def told(tmp_path_factory, folder):
    """A run of the command on pairs in which more letters `a` are better, a fifth of them flipped."""
    random = np.random.default_rng(0)
    base = tmp_path_factory.mktemp("told")
    rows = []
    for index in range(400):
        counts = random.permutation(13)[:2]
        better, worse = max(counts), min(counts)
        if random.random() > 1 / (1 + np.exp(worse - better)):  # a preference is a chance, and a flip another thing
            better, worse = worse, better
        texts = ["".join(random.permutation(list("a" * count + "z" * (12 - count)))) for count in (better, worse)]
        first, second = reversed(texts) if index in FLIPPED else texts
        rows.append({"prompt": "Say:", "chosen": first, "rejected": second, "chosen_from": first, "row": index})
        rows[-1]["rejected_from"] = second
    data = base / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    def command(*options):
        return main(["noise", str(data), "--model", folder, "--cache", str(base / "cache"), *map(str, options)])

    command.data = data
    return command


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_command_finds_the_rate_and_the_flipped_pairs(told, tmp_path, capsys):
    suspects, clean = tmp_path / "suspects.jsonl", tmp_path / "clean.jsonl"
    assert told("--out", suspects, "--count", 30, "--drop", clean, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["taken"]["rate"] == pytest.approx(0.2, abs=0.07)
    assert len({suspect["row"] for suspect in lines(suspects)} & FLIPPED) >= 24
    kept = {row["row"] for row in lines(clean)}
    assert len(kept & FLIPPED) < 30
    assert len(kept - FLIPPED) > 270


def test_a_review_goes_before_the_suspicion(told, tmp_path, capsys):
    review, out = tmp_path / "review.jsonl", tmp_path / "clean.jsonl"
    assert told("--out", review) == 0
    suspects = lines(review)
    decided = dict(zip((one["row"] for one in suspects), ("keep", "swap"), strict=False))
    kept, swapped = decided
    write_suspects(review, [{**one, "decision": decided.get(one["row"], "")} for one in suspects])
    assert told("--reviewed", review, "--drop", out) == 0
    rows = {row["row"]: row for row in lines(out)}
    for row, side in ((kept, "chosen"), (swapped, "rejected")):
        old = next(one for one in suspects if one["row"] == row)
        assert rows[row]["chosen"] == rows[row]["chosen_from"] == old[side]
    assert suspects[2]["row"] not in rows
    write_suspects(review, [{"row": 400, "decision": "drop"}])
    assert told("--reviewed", review, "--drop", out) == 2
    assert "row 400" in capsys.readouterr().err


def test_down_weighting_writes_the_probability_that_a_label_is_right(told, tmp_path):
    out, review = tmp_path / "weighted.jsonl", tmp_path / "review.jsonl"
    assert told("--down-weight", out, "--out", review) == 0
    weights = {row["row"]: row["weight"] for row in lines(out)}
    assert len(weights) == 400
    assert all(0 <= weight <= 1 for weight in weights.values())
    assert np.mean([weights[row] for row in FLIPPED]) < 0.4
    assert np.mean([weight for row, weight in weights.items() if row not in FLIPPED]) > 0.9
    suspects = lines(review)
    assert all(weights[one["row"]] == pytest.approx(1 - one["suspicion"], abs=1e-4) for one in suspects)
    # A person's decision is trusted in full.
    write_suspects(review, [{**suspects[0], "decision": "keep"}, {**suspects[1], "decision": "drop"}])
    assert told("--reviewed", review, "--downweight", out) == 0
    weights = {row["row"]: row["weight"] for row in lines(out)}
    assert weights[suspects[0]["row"]] == 1.0
    assert suspects[1]["row"] not in weights


def test_the_command_says_when_it_cannot_tell(folder, tmp_path, capsys):
    random = np.random.default_rng(0)
    rows = [{"prompt": f"{index}:", "chosen": "a", "rejected": "b"} for index in range(120)]
    rows = [row if random.random() < 0.5 else {**row, "chosen": "b", "rejected": "a"} for row in rows]
    data, out = tmp_path / "coin.jsonl", tmp_path / "clean.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    command = ["noise", str(data), "--model", folder, "--cache", str(tmp_path / "cache")]
    assert main(command) == 1
    said = capsys.readouterr().out
    assert "cannot tell" in said
    assert "how surely is not known" in said
    assert "suspicion" not in said
    assert "probability" not in said
    assert main([*command, "--drop", str(out)]) == 2
    assert not out.exists()


def test_a_list_does_not_write_over_decisions_nor_the_data(told, tmp_path, capsys):
    review = tmp_path / "review.jsonl"
    write_suspects(review, [{"row": 1, "decision": "swap"}, {"row": 2, "decision": ""}])
    before = review.read_bytes()
    for file, word in ((review, "decisions (1)"), (told.data, "the data itself")):
        assert told("--out", file) == 2
        assert word in capsys.readouterr().err
    assert review.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--count", "0"], "--count"),
        (["--threshold", "1"], "--threshold"),
        (["--reviewed", "x.jsonl"], "no effect"),
        (["--drop", "x.csv"], "must end in"),
    ],
)
def test_options_without_sense_are_refused(told, options, word, capsys):
    assert told(*options) == 2
    assert word in capsys.readouterr().err


def test_repeated_labels_alone_drop_no_pair(folder, tmp_path, capsys):
    data, out = tmp_path / "twice.jsonl", tmp_path / "clean.jsonl"
    random = np.random.default_rng(0)
    rows = []
    for index in random.permutation(150):  # coins, of which 60 were thrown twice and fell differently
        one = {"prompt": f"{random.integers(10**6)}:", "chosen": "a", "rejected": "b"}
        other = {**one, "chosen": "b", "rejected": "a"}
        first, second = (one, other) if random.random() < 0.5 else (other, one)
        rows += [first, second if index < 60 else first]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    command = ["noise", str(data), "--model", folder, "--cache", str(tmp_path / "cache")]
    assert main([*command, "--json"]) == 0
    taken = json.loads(capsys.readouterr().out)["taken"]
    assert taken["rate"] == pytest.approx((1 - 0.2**0.5) / 2)  # 90 of 150 agree: A = .6
    assert "150 repeated labels" in taken["source"]
    assert main([*command, "--drop", str(out)]) == 2
    assert not out.exists()
