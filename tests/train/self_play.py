"""Runs on winners alone whose generator is watched."""

from __future__ import annotations

from prefalign.train import TransformersGenerator
from tests.tiny import tiny_pairs
from tests.train.runs import ours

SEPPO = {"loss": "seppo(beta=0.1)", "max_new_tokens": 5}


def winners(count=24):
    return tiny_pairs(count).remove_columns("rejected")


def fingerprint(model):
    """What tells the weights of a model apart: their sums, trained ones only where there are adapters."""
    named = [(name, p) for name, p in model.named_parameters() if "lora_" in name or not hasattr(model, "peft_config")]
    return [round(p.detach().double().abs().sum().item(), 9) for _, p in named]


class Spy:
    """A generator, and an observer of all that scores."""

    def __init__(self):
        self.calls = []
        self.generate = TransformersGenerator()

    def __call__(self, model, request):
        self.calls.append((request.version, fingerprint(model), len(request.prompts), request.seed))
        return self.generate(model, request)

    def watch(self, trainer):
        """Note at each step the policy's weights, the reference's, and the tokens that it scores."""
        self.policy, self.scored, self.batches = {}, [], []
        original = trainer.reference.logps

        def logps(inputs):
            step = trainer.state.global_step
            self.policy.setdefault(step, fingerprint(trainer.accelerator.unwrap_model(trainer.model)))
            with trainer.reference.serving() as model:
                self.scored.append((step, trainer.reference.version, fingerprint(model)))
            self.batches.append(inputs["input_ids"].tolist())
            return original(inputs)

        trainer.reference.logps = logps
        return trainer


def run(folder, model, spy=None, trainer=None, **options):
    spy = spy or Spy()
    settings = {**SEPPO, "reference": "past(keep=3, every=2)", "max_steps": 8, **options}
    data = {"train_dataset": winners(), "generator": spy, **(trainer or {})}
    return spy.watch(ours(folder, model, data, **settings)), spy
