"""The site builds strictly and offline; what the pages tell readers to type is what the programs take."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import sympy
import yaml

from prefalign.cli._main import COMMANDS
from prefalign.losses import Loss, parse_loss
from prefalign.references import parse_reference
from prefalign.train import _recipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
SHELL = {"bash", "console", "sh", "shell"}


def blocks(*languages):
    """(page, text) of every block in one of the languages."""
    for page in PAGES:
        for indent, language, text in FENCE.findall(page.read_text("utf-8")):
            if language in languages:
                yield page, "\n".join(line.removeprefix(indent) for line in text.splitlines())


def commands():
    """(page, words) of every command in shell blocks: prompts and comments removed, continued lines joined."""
    for page, text in blocks(*SHELL):
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):  # OMP_NUM_THREADS=1 prefalign ...
                words = words[1:]
            if words:
                yield page, words


def prefalign_calls():
    """(page, arguments of `prefalign`) whether called directly or through a launcher."""
    for page, words in commands():
        if words[0] == "prefalign":
            yield page, words[1:]
        elif "-m" in words and words[words.index("-m") + 1 :][:1] == ["prefalign"]:
            yield page, words[words.index("-m") + 2 :]


CALLS = [pytest.param(words, id=f"{page.stem}: {' '.join(words)[:60]}") for page, words in prefalign_calls()]
YAMLS = [pytest.param(text, id=f"{page.stem}: {text.splitlines()[0][:40]}") for page, text in blocks("yaml")]
YAMLS += [
    pytest.param(path.read_text("utf-8"), id=path.name)
    for path in sorted((ROOT / "examples").glob("*.yaml"))
    if re.search(r"^loss:", path.read_text("utf-8"), re.MULTILINE)  # others are no training configurations
]
PLACEHOLDER = re.compile(r"\.\.\.|…|\[--")  # a synopsis, not a command


@pytest.fixture(scope="module")
def parsers():
    made = {}

    def parser(command):
        if command not in made:
            made[command] = argparse.ArgumentParser(prog=f"prefalign {command}", allow_abbrev=False)
            importlib.import_module(f"prefalign.cli.{COMMANDS[command][0]}").configure(made[command])
        return made[command]

    return parser


def test_there_are_commands_and_files_to_check():
    assert len(CALLS) > 20
    assert len(YAMLS) > 5


@pytest.mark.parametrize("words", CALLS)
def test_the_command_line_takes_what_the_page_says(words, parsers):
    if any(PLACEHOLDER.search(word) for word in words) or words[0].startswith("-"):
        pytest.skip("a synopsis")
    assert words[0] in COMMANDS
    stop = next((i for i, word in enumerate(words) if word in ("|", ">", "&&", ";")), len(words))
    try:
        parsers(words[0]).parse_args(words[1:stop])
    except SystemExit as error:
        pytest.fail(f"`prefalign {' '.join(words)}` is refused (exit code {error.code}).")


@pytest.mark.parametrize("text", YAMLS)
def test_a_yaml_block_is_read_by_what_it_is_for(text, parsers, tmp_path):
    if text.startswith("# spec.yaml"):
        from prefalign.logic import count, read_spec

        (tmp_path / "spec.yaml").write_text(text, "utf-8")
        assert count(read_spec(tmp_path / "spec.yaml")) >= 0
        return
    values = yaml.safe_load(text)
    actions = parsers("train").get_default("actions")
    unknown = values.keys() - actions.keys() - {"env"}
    assert not unknown
    for name, value in values.items():
        _recipe._read_value(name, value, actions[name])
    if "loss" in values:
        assert isinstance(parse_loss(values["loss"]), Loss)
    if "reference" in values:
        parse_reference(values["reference"])


def test_python_without_prompts_parses_and_imports_what_there_is():
    plain = [text for _, text in blocks("python", "py") if ">>>" not in text]
    assert plain
    for text in plain:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prefalign"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), text


def test_losses_in_tables_of_other_tools_are_losses_here():
    page = (ROOT / "docs" / "howto" / "from-axolotl-llama-factory.md").read_text("utf-8")
    said = re.findall(r"`loss: ([^`]+)`", page)
    assert len(said) > 8
    for text in said:
        parse_loss(text)


def test_the_options_named_for_other_tools_are_options_here(parsers):
    page = (ROOT / "docs" / "howto" / "from-axolotl-llama-factory.md").read_text("utf-8")
    actions = parsers("train").get_default("actions")
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in page.splitlines() if line.startswith("| ")]
    ours = [name for row in rows for name in re.findall(r"`(\w+)(?::[^`]*)?`", row[-1])]
    loss_words = {"bco", "smoothed", "here"}
    assert len(ours) > 15
    assert set(ours) - loss_words <= actions.keys()


@pytest.mark.parametrize("path", sorted((ROOT / "examples" / "accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_reads_its_files(path):
    from accelerate.commands.config.config_args import ClusterConfig

    config = ClusterConfig.from_yaml_file(str(path))
    assert (config.num_processes, config.num_machines, config.mixed_precision) == (8, 1, "bf16")


def test_accelerate_takes_the_launch_lines():
    from accelerate.commands.launch import launch_command_parser

    lines = [words[2:] for _, words in commands() if words[:2] == ["accelerate", "launch"] and "..." not in words]
    assert len(lines) >= 6
    for words in lines:
        args = launch_command_parser().parse_args(words)
        assert args.module
        assert args.training_script == "prefalign"
        assert args.config_file is None or (ROOT / args.config_file).is_file()


NOTEBOOKS = {path.stem: json.loads(path.read_text("utf-8")) for path in (ROOT / "docs" / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_a_notebook_is_kept_without_outputs(name):
    code = [cell for cell in NOTEBOOKS[name]["cells"] if cell["cell_type"] == "code"]
    assert len(code) > 3
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    for cell in code:
        ast.parse("".join(cell["source"]))


# ---------------------------------------------------------------------------------------------- the site itself


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason="the group `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    # A proxy that nobody serves: whatever the build would fetch would fail.
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    build = subprocess.run(
        command, cwd=ROOT, env=_environment(offline), capture_output=True, text=True, check=False, timeout=300
    )
    assert build.returncode == 0, build.stdout[-3000:] + build.stderr[-3000:]
    return folder


def _environment(more):
    import os

    return {**os.environ, **more, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.mark.slow
def test_a_page_asks_no_other_host_for_anything(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    source = r'<(?:script|img|iframe|source)[^>]*\bsrc="(?:https?:)?//'
    link = r'<link[^>]*rel="(?:stylesheet|preconnect|preload)"[^>]*href="(?:https?:)?//'
    fetched = re.compile(f"{source}|{link}")
    for page in pages:
        assert not fetched.search(page.read_text("utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?https?:|@import ['\"]?http", style.read_text("utf-8")), style


@pytest.mark.slow
def test_every_loss_has_its_page(site):
    page = (site / "losses" / "dpop" / "index.html").read_text("utf-8")
    # Worked by hand: below the reference, rho = (1 + penalty)*log pi(w) - log pi(l) + ..., so its slope is 1 + penalty.
    assert "drho/dlog pi(w) = penalty + 1" in page
    assert "arXiv:2402.13228" in page
    assert "<svg" in page
    page = (site / "losses" / "orpo" / "index.html").read_text("utf-8")
    assert "drho/dlog pi(w) = 1/(n_w*(1 - w))" in page  # d log odds / d log p = 1/(1 - p), log p a mean over tokens
    assert (site / "losses" / "aot" / "index.html").read_text("utf-8").count("torch.sort") == 1


@pytest.mark.slow
def test_the_api_lists_what_is_exported(site):
    page = (site / "api" / "references" / "index.html").read_text("utf-8")
    for name in ("Soup", "PastCheckpoints", "MovingAverage", "parse_reference"):
        assert f'id="prefalign.references.{name}"' in page
    page = (site / "api" / "logic" / "index.html").read_text("utf-8")
    for name in ("derive", "generate", "Spec"):  # the latter two are imported when they are first used
        assert f'id="prefalign.logic.{name}"' in page


@pytest.mark.slow
def test_the_notebooks_were_run(site):
    pages = {name: (site / "notebooks" / name / "index.html").read_text("utf-8") for name in NOTEBOOKS}
    # By hand: P of DPO is (M(l) and R(w)) -> (M(w) and R(l)), and flipped labels leave the contrast as it is.
    assert "(M(l) ∧ R(w)) → (M(w) ∧ R(l))" in pages["tour"]
    assert "<!-- unCPO -->" in (site / "notebooks" / "tour-1.svg").read_text("utf-8")  # letters are drawn as paths
    assert "96 of 320 labels are wrong" in pages["noisy-labels"]  # 30 %
    assert "10 losses" in pages["new-loss"]
    for name in ("noisy-labels", "new-loss"):
        assert (site / "notebooks" / f"{name}-1.png").read_bytes()[:4] == b"\x89PNG"
    for name, page in pages.items():
        assert "Traceback" not in page
        assert (site / "notebooks" / f"{name}.ipynb").is_file()


@pytest.mark.slow
def test_pictures_are_shipped(site):
    gallery = (site / "gallery" / "index.html").read_text("utf-8")
    pictures = re.findall(r'<img[^>]* src="([^"]+)"', gallery)
    assert pictures
    for picture in pictures:
        assert (site / "gallery" / picture).resolve().stat().st_size > 1000
    assert gallery.count("<svg viewBox") > 20


# --------------------------------------------------------------------------------------------------- the hooks


@pytest.fixture(scope="module")
def pages_of_losses():
    spec = importlib.util.spec_from_file_location("hook", ROOT / "docs" / "_hooks" / "losses.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    return hook


def test_measured_pulls_are_those_of_dpo(pages_of_losses):
    # By hand: -log sigmoid(x), x = beta*D, has the slope -beta*sigmoid(-x) in log pi(w), and +beta*sigmoid(-x) in l.
    values, pulls, pushes = pages_of_losses.measure(parse_loss("dpo(beta=0.1)"), [0.0, 20.0])
    assert values == pytest.approx([0.693147, 0.126928], abs=1e-6)
    assert pulls == pytest.approx([0.05, 0.1 / (1 + 2.718281828**2)], abs=1e-9)
    assert pushes == pytest.approx(pulls)


@pytest.mark.slow
def test_derivatives_on_the_pages_are_those_of_the_code(pages_of_losses):
    margin, tokens, start = 7.0, 20.0, -30.0  # no loss has a kink there
    point = {"W": start + margin / 2, "L": start - margin / 2, "RW": start, "RL": start, "n_w": tokens, "n_l": tokens}
    seen = 0
    for text in pages_of_losses.EXAMPLES.values():
        reading = pages_of_losses._reading(parse_loss(text))
        if isinstance(reading, str):
            continue  # refused: the page says why
        total = {"W": 0.0, "L": 0.0}
        for (rule, slope, inner), meanings in zip(pages_of_losses.slopes(reading), reading.meanings, strict=True):
            given = {**reading.hyperparameters, **{symbol: point[symbol] for symbol in ("n_w", "n_l")}}

            def value(expression, given=given):
                return expression.subs({symbol: given[symbol.name] for symbol in expression.free_symbols})

            where = {**given, **point}
            given |= {name: float(sympy.exp(value(logp, where))) for name, logp in meanings.items()}
            given |= {f"{name}°": number for name, number in point.items()}  # detached, in weights
            ratios = [float(sympy.log(value(structure.ratio))) for structure in rule.structures]
            given |= {f"rho_{place}": number for place, number in enumerate(ratios, 1)}
            given["rho"] = ratios[0]
            if len(ratios) == 2:
                first, second = (float(value(rule.inner.expression, {**given, "rho": ratio})) for ratio in ratios)
                given["rho"] = first - second
            if rule.guard is not None and not bool(value(rule.guard)):
                continue
            for side in total:
                total[side] += float(value(slope) * value(sympy.sympify(inner[side])))
        _, (pull,), (push,) = pages_of_losses.measure(parse_loss(text), [margin])
        assert (total["W"], total["L"]) == (pytest.approx(-pull, rel=1e-6), pytest.approx(push, rel=1e-6)), text
        seen += 1
    assert seen > 15


def test_docstrings_keep_their_formulas():
    pytest.importorskip("griffe", reason="the group `docs` is not installed")
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "docs" / "_hooks" / "docstrings.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    text = "One line.\n\na*b*c - log(d)\n\nA sentence with e*f and `g*h`.\n\n"
    text += "Args:\n    x: 1/(2*y).\n\nExample:\n    >>> 2*3*4\n"
    assert hook.tidy(text) == (
        "One line.\n\n    a*b*c - log(d)\n\nA sentence with e\\*f and `g*h`.\n\n"
        "Args:\n    x: 1/(2\\*y).\n\nExamples:\n    >>> 2*3*4\n"
    )
