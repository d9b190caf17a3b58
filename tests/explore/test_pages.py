"""Pages to look at losses with: whole in themselves, safe against their own data, and usable without a mouse."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import threading
from urllib.parse import quote

import pytest

from prefalign._errors import SpecError
from prefalign.cli import main
from prefalign.explore import explanation_page, lattice_page, make_server
from prefalign.logic import Lattice, catalogue, explain

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
IN_A_BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def lattice():
    return Lattice({entry.name: entry.structure for entry in catalogue.table})


@pytest.fixture
def server(lattice):
    with make_server(lattice) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def asked(server, path, host="127.0.0.1"):
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path, headers={"Host": f"{host}:{port}"})
    reply = connection.getresponse()
    return reply.status, reply.read().decode()


def test_a_page_asks_nothing_of_the_network(lattice):
    for page in (lattice_page(lattice), explanation_page([explain("cpo"), explain("rpo")])):
        links = set(re.findall(r"https?://[^\s\"'<)]+", page)) - {"http://www.w3.org/2000/svg"}
        assert not links
        assert "@import" not in page


def test_a_name_cannot_end_the_script():
    page = lattice_page(Lattice({"</script><script>alert(1)</script>": "cpo", "b": "orpo"}))
    assert "<script>alert(1)" not in page
    assert page.count("</script>") == 2


def test_pictures_have_words_beside_them():
    page = explanation_page([explain("cpo")])
    assert 'alt="The loss falls as w rises, and falls as l falls.' in page


def test_what_is_too_large_for_a_page_is_refused():
    with pytest.raises(SpecError, match="at most 60"):
        lattice_page(Lattice([f"{a}{b}{c}{d}" for a in "vx" for b in "vxob" for c in "vxob" for d in "vx"]))


@pytest.mark.parametrize(
    ("text", "name"), [("w/l", "CPO"), ("M(l) -> M(w)", "unCPO"), ("ovxo", "ORPO"), ("w*w*l/(l*l*w)", "CPO")]
)
def test_what_is_typed_is_placed(server, text, name):
    status, body = asked(server, "/ask?loss=" + quote(text))
    assert status == 200
    assert {"equivalent", "same ratio"} & {json.loads(body)["relations"][name]}


def test_what_cannot_be_read_is_said(server):
    for text, reason in (
        ("__import__('os')", "error"),
        ("", "Type a formula"),
        ("w" * 501, "at most 500"),
        ("rpo", "structures"),
    ):
        _, body = asked(server, "/ask?loss=" + quote(text))
        said = json.loads(body)
        assert "error" in said
        assert reason in "error" + said["error"]


def test_only_this_machine_is_answered(server):
    assert server.server_address[0] == "127.0.0.1"
    assert asked(server, "/", host="evil.example")[0] == 403
    assert asked(server, "/etc/passwd")[0] == 404


def test_the_commands_write_pages_and_pictures(tmp_path, capsys):
    assert main(["explore", "cpo", "orpo", "ccpo", "-o", str(tmp_path / "three.html")]) == 0
    assert main(["explain", "dpo(beta=0.1)", "-o", str(tmp_path / "dpo.svg"), "--at", "rw=0.3"]) == 0
    assert main(["compare", "dpo", "orpo", "-o", str(tmp_path / "two.html")]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"three.html", "dpo.svg", "two.html"}
    page = (tmp_path / "two.html").read_text("utf-8")
    assert page.count("data:image/svg+xml") == 2
    for words, reason in (
        (["explain", "cpo", "-o", str(tmp_path / "x.gif")], "must end in"),
        (["explain", "cpo", "-o", str(tmp_path / "none" / "x.svg")], "folder that exists"),
        (["explain", "dpo", "-o", str(tmp_path / "x.svg"), "--at", "rw=2"], "strictly between 0 and 1"),
        (["explain", "dpo", "-o", str(tmp_path / "x.svg"), "--at", "rw"], "NAME=VALUE"),
        (["explore", "-o", str(tmp_path / "x.txt")], "must end in .html"),
    ):
        assert main(words) == 2
        assert reason in capsys.readouterr().err


# --- in a real browser, without a mouse ---

PROBE = """<script>
const seen = [], field = document.getElementById("field"), data_ = document.body.dataset;
const note = () => seen.push([document.activeElement.dataset.name, document.querySelector("#details h2").textContent]);
const press = key => document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
document.querySelector('[data-name="CEUnl"]').focus(); press("Enter"); note();
press("ArrowUp"); note(); press("ArrowRight"); note(); press("ArrowDown"); note();
data_.seen = JSON.stringify(seen);
data_.label = field.getAttribute("aria-label");
data_.buttons = document.querySelectorAll('[role="button"][tabindex="0"][aria-label]').length;
data_.ink = String(field.getContext("2d").getImageData(0, 0, 760, 760).data.some(v => v === 27));
</script></body>"""


def dumped(address):
    words = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=4000",
        "--dump-dom",
        address,
    ]
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.slow
@IN_A_BROWSER
def test_the_lattice_is_walked_with_the_keyboard_and_told_to_a_screen_reader(lattice, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(lattice_page(lattice).replace("</body>", PROBE), "utf-8")
    page = dumped(file.as_uri())
    (seen,) = re.findall(r'data-seen="([^"]*)"', page)
    walked = json.loads(seen.replace("&quot;", '"'))
    names = [name for name, _ in walked]
    assert all(focused == shown for focused, shown in walked)  # focus and what is told go together
    assert names[0] == "CEUnl"
    assert ("CEUnl", names[1]) in lattice.edges
    assert lattice.ranks[names[2]] == lattice.ranks[names[1]]
    assert (names[3], names[2]) in lattice.edges
    assert f'data-buttons="{len(lattice)}"' in page
    assert re.search(r'data-label="The loss [^"]* training leads to w = ', page)
    assert 'data-ink="true"' in page  # arrows were drawn


@pytest.mark.slow
@IN_A_BROWSER
def test_a_formula_is_placed_in_the_served_page(server):
    page = dumped(f"http://127.0.0.1:{server.server_address[1]}/#w*(1-l)/l")
    assert re.search(r'id="answer"[^>]*>(It entails|It is|That is)', page)
    assert "<h2>w*(1-l)/l</h2>" in page or "That is" in page
