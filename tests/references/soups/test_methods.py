"""Ways of choosing a soup's weights, and the landscape between models."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from prefalign._errors import CheckpointError, DataError
from prefalign.references import HeldOut, Landscape, draw_path, path, soup
from prefalign.references.soups._landscape import Point, simplex
from prefalign.references.soups._methods import learned
from tests.references.models import load_tensors, save_tensors, two_models
from tests.tiny import save_tiny, tiny_model, tiny_pairs, tiny_tokenizer

ROWS = list(tiny_pairs(6))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model fitted to the rows, that model disturbed a little, and one that is far away."""
    folder = tmp_path_factory.mktemp("ways")
    good = tiny_model(0)
    held_out = HeldOut(ROWS, tiny_tokenizer())
    optimizer = torch.optim.Adam(good.parameters(), lr=0.02)
    for _ in range(25):
        optimizer.zero_grad()
        held_out.backward(good)
        optimizer.step()
    paths = []
    for name, noise in (("good", 0.0), ("near", 0.02), ("far", 1.0)):
        torch.manual_seed(len(name))
        with torch.no_grad():
            moved = tiny_model(0)
            for target, source in zip(moved.parameters(), good.parameters(), strict=True):
                target.copy_(source + noise * torch.randn_like(source))
        moved.save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
        paths.append(folder / name)
    return paths


def nll_by_hand(model, rows):
    """Nats per completion token, row by row, without batches or padding."""
    tokenizer, total, count = tiny_tokenizer(), 0.0, 0
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        tokens = tokenizer(row["prompt"] + row["chosen"] + "<|im_end|>")["input_ids"]
        with torch.no_grad():
            logps = functional.log_softmax(model(input_ids=torch.tensor([tokens])).logits[0].double(), dim=-1)
        for place in range(len(prompt), len(tokens)):
            total -= float(logps[place - 1, tokens[place]])
            count += 1
    return total / count


def test_the_held_out_loss_is_the_mean_over_completion_tokens():
    model = tiny_model(3)
    held_out = HeldOut(ROWS, tiny_tokenizer(), batch_size=4)
    assert held_out.nll(model) == pytest.approx(nll_by_hand(model, ROWS), rel=1e-6)
    assert held_out.scored == sum(len(row["chosen"]) + 1 for row in ROWS)  # bytes, and the end


def test_messages_and_bare_texts_are_scored_too():
    tokenizer = tiny_tokenizer()
    talk = {"prompt": [{"role": "user", "content": "a"}], "chosen": [{"role": "assistant", "content": "bc"}]}
    # After the generation prompt: "bc", the end of the message, a line break.
    assert HeldOut([talk], tokenizer).scored == 4
    assert HeldOut([{"text": "abc"}], tokenizer).scored == 3  # the first token is not predicted; the end is
    with pytest.raises(DataError, match=r"Row 1 .*must have one of"):
        HeldOut([{"text": "abc"}, {"rejected": "x"}], tokenizer)
    with pytest.raises(DataError, match="at least one row"):
        HeldOut([], tokenizer)


def test_a_greedy_soup_adds_only_what_lowers_the_loss(models, tmp_path):
    made = soup(models, out=tmp_path / "soup", way="greedy", data=ROWS, progress=False)
    assert made.weights == (1.0, 0.0, 0.0)
    assert [note.split(":")[0] for note in made.notes[:3]] == ["Began with " + str(models[0]), *map(str, models[1:])]
    assert all("left out" in note for note in made.notes[1:3])
    good = load_tensors(models[0])
    assert all(torch.equal(tensor, good[name]) for name, tensor in load_tensors(made.out).items())


def test_a_greedy_soup_takes_what_helps(tmp_path):
    # Opposite disturbances of one fitted model: each is worse than their mean, which is the fitted model again.
    held_out, model = HeldOut(ROWS, tiny_tokenizer()), tiny_model(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(20):
        optimizer.zero_grad()
        held_out.backward(model)
        optimizer.step()
    fitted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    noise = {
        name: 0.05 * torch.randn(t.shape, generator=torch.Generator().manual_seed(4)) for name, t in fitted.items()
    }
    for name, sign in (("plus", 1), ("minus", -1)):
        model.load_state_dict({key: fitted[key] + sign * noise[key] for key in fitted})
        model.save_pretrained(tmp_path / name)
        tiny_tokenizer().save_pretrained(tmp_path / name)
    made = soup([tmp_path / "plus", tmp_path / "minus"], out=tmp_path / "soup", way="greedy", data=ROWS, progress=False)
    assert made.weights == (0.5, 0.5)
    assert "added" in made.notes[1]


def test_learned_weights_find_the_better_model(models, tmp_path):
    with pytest.warns(UserWarning, match="not linearly connected"):
        made = soup(models[::2], out=tmp_path / "soup", way="learned", data=ROWS, progress=False)
    assert math.fsum(made.weights) == pytest.approx(1)
    assert made.weights[0] > 0.9
    landscape = path(models[::2], ROWS, points=3, progress=False)
    equal = landscape.points[1].nll
    learned = HeldOut(ROWS, tiny_tokenizer()).nll(_load(made.out))
    assert learned < equal


def test_the_slope_of_a_weight_is_its_finite_difference(models):
    from prefalign.references.soups._mixture import Mixture
    from prefalign.references.weights._ingredients import find_ingredients

    mixture, held_out = Mixture(find_ingredients(models[:2])), HeldOut(ROWS, tiny_tokenizer())
    mixture.model.double()
    mixture.set((0.6, 0.4))
    held_out.backward(mixture.model)
    slopes = mixture.pull()
    for number in range(2):
        values = []
        for step in (1e-3, -1e-3):
            weights = [0.6, 0.4]
            weights[number] += step
            mixture.set(weights)
            values.append(held_out.nll(mixture.model))
        assert slopes[number] == pytest.approx((values[0] - values[1]) / 2e-3, rel=1e-2, abs=1e-4)


def test_slerp_keeps_the_length_that_a_straight_mean_loses(tmp_path):
    east, north = torch.zeros(2, 2), torch.zeros(2, 2)
    east[0, 0], north[0, 1] = 3.0, 3.0
    zero = torch.zeros(3)
    folders = [save_tensors(tmp_path / n, {"w": w, "z": zero}) for n, w in (("east", east), ("north", north))]
    third = soup(folders, weights=[2 / 3, 1 / 3], way="slerp", out=tmp_path / "third")
    # A third of the way along a right angle: 30 degrees.
    expected = torch.tensor([[3 * math.cos(math.pi / 6), 3 * math.sin(math.pi / 6)], [0.0, 0.0]])
    torch.testing.assert_close(load_tensors(third.out)["w"], expected)
    assert torch.equal(load_tensors(third.out)["z"], zero)
    assert "90°" in third.notes[0]


def test_a_completion_that_ends_already_is_not_ended_twice():
    rows = [{"prompt": "a", "chosen": "bc"}, {"prompt": "a", "chosen": "bc<|im_end|>"}]
    assert HeldOut(rows, tiny_tokenizer()).scored == 2 * 3


def test_a_learned_soup_keeps_its_best_step_not_its_last():
    """Played: the second of three steps has the lowest loss."""
    tried, losses = [], iter([3.0, 1.0, 2.0])
    mixture = SimpleNamespace(model=None, set=tried.append, pull=lambda: [1.0, -1.0])
    held_out = SimpleNamespace(backward=lambda model: next(losses))
    names = [SimpleNamespace(name=name) for name in "ab"]
    recipe = learned(names, mixture, held_out, steps=3, progress=False)
    assert recipe.weights == pytest.approx(tried[1])
    assert len({weights[0] for weights in tried}) == 3


def test_slerp_of_a_model_with_itself_is_itself(tmp_path):
    tensor = torch.randn(30, 30)
    folders = [save_tensors(tmp_path / n, {"w": tensor}) for n in "ab"]
    assert torch.equal(load_tensors(soup(folders, way="slerp", out=tmp_path / "soup").out)["w"], tensor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"way": "greedi"}, "Did you mean `greedy`"),
        ({"way": "greedy"}, "pass `data`"),
        ({"way": "learned", "data": ROWS, "weights": [1, 0]}, "leave `weights` out"),
    ],
)
def test_a_way_says_what_it_needs(tmp_path, options, message):
    with pytest.raises(CheckpointError, match=message):
        soup(["a", "b"], out=tmp_path / "soup", **options)


def test_slerp_is_for_two(tmp_path):
    with pytest.raises(CheckpointError, match="for two ingredients"):
        soup(["a", "b", "c"], out=tmp_path / "soup", way="slerp")


def test_data_without_a_tokenizer_says_so(tmp_path):
    folders = two_models(tmp_path)
    for folder in folders:
        for file in folder.glob("tokenizer*"):
            file.unlink()
    with pytest.raises(CheckpointError, match="need a tokenizer"):
        soup(folders, out=tmp_path / "soup", data=ROWS)


def test_the_barrier_is_the_highest_rise_above_the_weighted_mean():
    points = [Point((1.0, 0.0), 2.0), Point((0.75, 0.25), 2.4), Point((0.5, 0.5), 2.6), Point((0.0, 1.0), 3.0)]
    # Above the line 2 + share: 0.15 and 0.1.
    assert Landscape(("a", "b"), tuple(points)).barrier == pytest.approx(0.15)
    assert not Landscape(("a", "b"), tuple(points)).connected
    convex = Landscape(("a", "b"), (points[0], Point((0.5, 0.5), 1.9), points[3]))
    assert convex.barrier == pytest.approx(-0.6)
    assert convex.connected
    assert convex.best.weights == (0.5, 0.5)


def test_a_path_measures_every_average(models):
    landscape = path(models[:2], ROWS, points=3, progress=False)
    assert [point.weights for point in landscape.points] == [(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]
    for place, model in ((0, models[0]), (2, models[1])):
        assert landscape.points[place].nll == pytest.approx(nll_by_hand(_load(model), ROWS), rel=1e-6)


def test_a_path_of_three_is_a_triangle_with_rewards(models, tmp_path):
    lengths = []

    def reward(prompts, completions):
        lengths.append((len(prompts), len(completions)))
        return [float(len(text)) for text in completions]

    landscape = path(models, ROWS[:2], points=3, reward=reward, new_tokens=3, progress=False)
    assert len(landscape.points) == 6
    assert lengths == [(2, 2)] * 6
    assert all(point.reward is not None for point in landscape.points)
    draw_path(landscape, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(CheckpointError, match=r"must end in one of \.png"):
        draw_path(landscape, tmp_path / "plot.docx")


def test_the_grid_of_weights_covers_the_simplex():
    assert len(simplex(3, 6)) == 21
    assert all(math.fsum(weights) == pytest.approx(1) for weights in simplex(3, 6))


def test_the_commands_write_draw_and_refuse(tmp_path, capsys):
    from prefalign.cli import main

    one, two = map(str, two_models(tmp_path))
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    out = str(tmp_path / "soup")
    assert main(["soup", one, two, "-o", out, "--weights", ".25,.75", "--max-shard-size", "6KB", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == [0.25, 0.75]
    assert main(["soup", one, two, "-o", out]) == 2
    assert "exists" in capsys.readouterr().err
    for wrong in (["--weights", "a,b"], ["--max-shard-size", "big"], ["--data", str(data), "--limit", "0"]):
        assert main(["soup", one, two, "-o", str(tmp_path / "other"), *wrong]) == 2
    capsys.readouterr()
    plot = str(tmp_path / "path.svg")
    assert main(["path", one, two, "--data", str(data), "--limit", "3", "--points", "3", "-o", plot, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [point["weights"] for point in found["points"]] == [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    assert found["connected"] == (found["barrier"] <= 1e-5)
    assert (tmp_path / "path.svg").read_text().startswith("<?xml")
    assert main(["path", one, "--data", str(data)]) == 2


def test_the_command_scores_greedy_completions_by_vader(models, tmp_path, capsys):
    """Three models: the triangle as a picture, and at each corner what VADER says of the model's own texts."""
    pytest.importorskip("vaderSentiment")
    from prefalign.cli import main
    from prefalign.diagnose import gold_rewards

    data, plot = tmp_path / "pairs.jsonl", tmp_path / "triangle.png"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:3]))
    words = ["path", *map(str, models), "--data", str(data), "--reward", "vader", "--new-tokens", "6", "-o", str(plot)]
    assert main([*words, "--points", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["points"]) == 6
    tokenizer, model = tiny_tokenizer(), _load(models[0])
    texts = []
    for row in ROWS[:3]:
        ids = tokenizer(row["prompt"], return_tensors="pt")["input_ids"]
        for _ in range(6):
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1].argmax(-1)[None]], dim=1)
            if int(ids[0, -1]) == 2:
                break
        start = len(tokenizer(row["prompt"])["input_ids"])
        texts.append(tokenizer.decode(ids[0, start:], skip_special_tokens=True))
    (corner,) = (point for point in found["points"] if point["weights"][0] == 1)
    assert corner["reward"] == pytest.approx(sum(gold_rewards(texts)) / 3)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert main([*words, "--points", "3"]) == 0
    assert "reward" in capsys.readouterr().out


def _load(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def test_a_path_needs_two_or_three(tmp_path):
    with pytest.raises(CheckpointError, match="two or three"):
        path([save_tiny(tmp_path / "a")], ROWS)
