"""What is generated: by transformers, by a server, and by generators that return nonsense."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from trl.generation.vllm_client import VLLMClient

from prefalign._errors import ConfigError, TrainingError
from prefalign.train import PrefConfig, Request, Sampling, TransformersGenerator, VLLMGenerator
from prefalign.train.generation._sampling import checked, read_sampling, trim
from tests.tiny import tiny_model, tiny_tokenizer
from tests.train.runs import COMMON

SAMPLING = Sampling(6, 1.0, 1.0, 0, stop_ids=(2,), pad_id=0, ahead=1, batch=None)
PROMPTS = ((40, 41, 42, 43, 44, 45), (50,), (60, 61, 62))


def model():
    """Random, but far from uniform."""
    made = tiny_model(3)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    return made.eval()


def request(seed=0, prompts=PROMPTS, version=0, **options):
    return Request(prompts, Sampling(**{**vars(SAMPLING), **options}), seed, version)


@torch.no_grad()
def greedy_by_hand(policy, prompt, count):
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(policy(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == 2:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-6}, {"batch": 2, "top_k": 1}])
def test_padded_prompts_are_continued_as_each_alone(options):
    policy = model()
    made = TransformersGenerator()(policy, request(**options))
    expected = [greedy_by_hand(policy, prompt, 6) for prompt in PROMPTS]
    assert [trim(row, SAMPLING) for row in made] == expected


def test_the_models_own_settings_have_no_say():
    policy = model()
    policy.generation_config.update(temperature=0.01, top_k=1, top_p=0.1, do_sample=False, repetition_penalty=3.0)
    plain, set_up = TransformersGenerator()(model(), request()), TransformersGenerator()(policy, request())
    assert plain == set_up


def test_a_seed_repeats_its_samples_and_leaves_the_trainings_random_numbers_alone():
    policy = model()
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (TransformersGenerator()(policy, request(seed)) for seed in (7, 7, 8))
    assert first == again != other
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_model_in_training_mode_generates_without_dropout_and_is_put_back():
    policy = tiny_model(3, attention_dropout=0.5)
    policy.train()
    policy.model.layers[0].eval()
    made = TransformersGenerator()(policy, request(temperature=0.0))
    assert made == TransformersGenerator()(policy.eval(), request(temperature=0.0))
    policy.train()
    policy.model.layers[0].eval()
    TransformersGenerator()(policy, request())
    assert policy.training
    assert not policy.model.layers[0].mlp.training
    assert policy.model.layers[1].mlp.training


def test_temperature_sharpens():
    """At temperature t the log-odds of two tokens are 1/t times the model's: drawn 4,000 times for one prompt."""
    policy, prompts = model(), ((50,),) * 4000
    logits = policy(torch.tensor([[50]])).logits[0, -1].detach()
    for temperature in (1.0, 0.25):
        made = TransformersGenerator()(policy, request(1, prompts, temperature=temperature, max_new_tokens=1))
        share = [row[0] for row in made].count(int(logits.argmax())) / 4000
        expected = float(torch.softmax(logits / temperature, 0).max())
        assert abs(share - expected) < 4 * (expected * (1 - expected) / 4000) ** 0.5


def test_stop_tokens_of_tokenizer_model_and_user_all_end_a_completion():
    args = PrefConfig("unused", **COMMON, loss="seppo(beta=0.1)", stop_tokens=["!"])
    tokenizer = tiny_tokenizer()
    sampling = read_sampling(args, tokenizer, SimpleNamespace(eos_token_id=[2, 7]))
    assert sampling.stop_ids == (2, 7, tokenizer.get_vocab()["!"])
    assert trim([9, 7, 9], sampling) == [9, 7]


class Server:
    """Answers like vLLM's completions endpoint: each completion is its prompt's length and the end token."""

    def __init__(self):
        self.calls = []

    def post(self, url, json=None, **options):
        path = url.removeprefix("http://server")
        self.calls.append((path, json))
        choices = [
            {"prompt_token_ids": prompt, "token_ids": [len(prompt), 2], "logprobs": None, "text": "", "index": place}
            for place, prompt in enumerate((json or {}).get("prompt", ()))
        ]
        return SimpleNamespace(status_code=200, text="", json=lambda: {"choices": choices, "success": True})


def trls_client(server):
    """TRL's own client, whose requests go to `server`; weights go by NCCL, which is noted and left out."""
    client = object.__new__(VLLMClient)
    client.session, client.base_url, client.model = server, "http://server", "policy"
    client.update_named_params = lambda metadata, named: server.calls.append(("weights", [name for name, *_ in named]))
    return client


def test_a_server_is_sent_new_weights_only():
    """Through TRL's own client, so that a change of its methods or of what it returns is seen here."""
    server, policy = Server(), model()
    generator = VLLMGenerator(trls_client(server))
    assert generator(policy, request(version=0)) == [[6, 2], [1, 2], [3, 2]]
    generator(policy, request(version=0))
    assert generator(policy, request(version=30, batch=2)) == [[6, 2], [1, 2], [3, 2]]
    kinds = [kind.rpartition("/")[2] for kind, _ in server.calls]
    update = ["weights", "reset_prefix_cache"]
    assert kinds == [*update, "completions", "completions", *update, "completions", "completions"]
    assert server.calls[0][1] == [name for name, _ in policy.named_parameters()]
    asked = server.calls[2][1]
    assert asked["prompt"] == [list(prompt) for prompt in PROMPTS]
    assert (asked["n"], asked["max_tokens"], asked["temperature"], asked["top_p"], asked["top_k"]) == (1, 6, 1, 1, 0)
    assert (asked["repetition_penalty"], asked["stop_token_ids"], asked["seed"]) == (1, [2], 0)
    assert [len(call["prompt"]) for kind, call in server.calls[6:]] == [2, 1]


def test_a_server_is_not_sent_adapters():
    with pytest.raises(ConfigError, match="adapters"):
        VLLMGenerator(trls_client(Server()))(SimpleNamespace(peft_config={}), request())


NONSENSE = {
    "nothing for any prompt": ([[], [], []], "nothing, or only padding"),
    "only padding": ([[0, 0], [0], []], "nothing, or only padding"),
    "too few": ([[5, 2]], "each of 3 prompts .got 1 completions"),
    "no list": (None, "got None"),
    "another vocabulary": ([[5, 2], [999], [6]], "999"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_a_generator_that_returns_nonsense_is_refused(case):
    made, message = NONSENSE[case]
    with pytest.raises(TrainingError, match=message):
        checked(made, request(), vocabulary=259)


def test_some_empty_completions_are_no_error():
    assert checked([[5, 2, 9], [], [0, 0]], request(), vocabulary=259) == [[5, 2], [], []]
