"""Which tokens count: conversations marked by hand, for the chat templates of TRL and some written here."""

from __future__ import annotations

from pathlib import Path

import pytest
import trl

from prefalign import PrefalignError
from prefalign.data import Scorer, check_score
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
USER = {"role": "user", "content": "Sum?"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}],
}
RESULT = {"role": "tool", "name": "add", "content": "RESULT"}
HI, MORE, BYE = (
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "MORE"},
    {"role": "assistant", "content": "Bye."},
)
DIALOGUE, AGENT = [HI, MORE, BYE], [CALL, RESULT, {"role": "assistant", "content": "Two."}]

MISTRAL = (
    "<s>{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}#"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tokenizer(template: str):
    """TRL's template of that name, or a template itself, on a tokenizer of bytes."""
    found = tiny_tokenizer()
    found.add_special_tokens({"bos_token": "<s>"})
    path = TEMPLATES / f"{template}.jinja"
    found.chat_template = path.read_text("utf-8") if path.is_file() else template
    return found


def fragments(template: str, completion, score, options=None) -> list[str]:
    """The scored pieces of the text."""
    found = Scorer(tokenizer(template), score).scored([USER], completion, options or {})
    assert len(found.ids) == len(found.marks) == len(found.offsets)
    pieces, inside = [], False
    for mark, (start, end) in zip(found.marks, found.offsets, strict=True):
        if mark and not inside:
            pieces.append("")
        if mark:
            pieces[-1] += found.text[start:end]
        inside = bool(mark)
    return pieces


# What the assistant wrote, with the token that ends its turn: marked by hand.
IM_END, EOT = "<|im_end|>\n", "<|eot_id|>"
DIALOGUES = {
    "llama3": [f"Hi.{EOT}", f"Bye.{EOT}"],
    "llama3_1": [f"Hi.{EOT}", f"Bye.{EOT}"],
    "qwen2_5": [f"\nHi.{IM_END}", f"\nBye.{IM_END}"],  # its training variant counts the line break, too
    "qwen3_instruct_2507": [f"Hi.{IM_END}", f"Bye.{IM_END}"],
    "gemma3": ["Hi.<end_of_turn>\n", "Bye.<end_of_turn>\n"],
    "phi3": ["Hi.<|end|>\n", "Bye.<|end|>\n<|im_end|>"],  # the tokenizer's own end of text follows the last turn
    "cohere2": ["Hi.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>", "Bye.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"],
    "lfm2": [f"Hi.{IM_END}", f"Bye.{IM_END}"],
    "gptoss": [
        "<|start|>assistant<|channel|>final<|message|>Hi.<|end|>",
        "<|start|>assistant<|channel|>final<|message|>Bye.<|return|>",
    ],
    "nemotron_3_nano": [f"<think></think>Hi.{IM_END}", f"<think></think>Bye.{IM_END}"],
    CHAT_TEMPLATE: [f"Hi.{IM_END}", f"Bye.{IM_END}"],
    MISTRAL: [" Hi.</s>", " Bye.</s>"],
    ZEPHYR: ["Hi.</s>\n", "Bye.</s>\n"],
    MARKED: ["Hi.#", "Bye.#"],
}


@pytest.mark.parametrize("template", DIALOGUES, ids=lambda name: name[:20])
def test_a_dialogue_marked_by_hand(template):
    expected = DIALOGUES[template]
    assert fragments(template, DIALOGUE, "assistant") == expected
    assert fragments(template, DIALOGUE, "last_turn") == expected[1:]


AGENTS = {
    "llama3_1": ['{"name": "add", "parameters": {"a": 1}}' + EOT, f"Two.{EOT}"],
    "qwen2_5": ['\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>' + IM_END, f"\nTwo.{IM_END}"],
    "qwen3_instruct_2507": [
        '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>' + IM_END,
        f"Two.{IM_END}",
    ],
    "lfm2_v2": [f"<|tool_call_start|>[add(a=1)]<|tool_call_end|>{IM_END}", f"Two.{IM_END}"],
    "gptoss": [
        '<|start|>assistant to=functions.add<|channel|>commentary json<|message|>{"a": 1}<|call|>',
        "<|start|>assistant<|channel|>final<|message|>Two.<|return|>",
    ],
    "gemma4_v2": ["<|tool_call>call:add{a:1}<tool_call|><turn|>\n", "Two.<turn|>\n"],
    "glm4moe_training": [
        "\n<think></think>\n<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n</tool_call><|observation|>",
        "\n<think></think>\nTwo.<|user|>",
    ],
}


@pytest.mark.parametrize("template", AGENTS)
def test_an_agent_marked_by_hand_and_what_the_tool_said_never_counts(template):
    expected = AGENTS[template]
    assert fragments(template, AGENT, "assistant") == expected
    assert fragments(template, AGENT, "last_turn") == expected[1:]


def test_turns_of_the_prompt_never_count():
    found = Scorer(tokenizer(CHAT_TEMPLATE), "assistant").scored([USER, HI, MORE], [BYE], {})
    assert "".join(found.text[a:b] for mark, (a, b) in zip(found.marks, found.offsets, strict=True) if mark) == (
        f"Bye.{IM_END}"
    )


@pytest.mark.parametrize(
    ("template", "completion", "message"),
    [
        ("qwen3", DIALOGUE, "renders a turn in another way"),  # its training variant renders another text
        (CHAT_TEMPLATE, [MORE], "needs a turn of the assistant"),
    ],
)
def test_turns_that_cannot_be_found_are_refused(template, completion, message):
    with pytest.raises(PrefalignError, match=message):
        Scorer(tokenizer(template), "assistant").scored([USER], completion, {})


def test_what_cannot_mark_is_refused():
    plain = tiny_tokenizer()
    plain.chat_template = None
    with pytest.raises(PrefalignError, match="one chat template"):
        Scorer(plain, "assistant")
    with pytest.raises(PrefalignError, match="Did you mean `assistant`"):
        check_score("assistent")
