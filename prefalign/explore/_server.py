"""The page on this machine alone, with answers to what is typed into it."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from .._errors import PrefalignError
from ..logic import Lattice, PreferenceStructure, as_rules, parse_formula
from ._nodes import placed
from ._page import lattice_page

_LONGEST = 500
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'"


def make_server(lattice: Lattice, port: int = 0, title: str = "") -> ThreadingHTTPServer:
    """A server on the loopback address; `serve_forever` runs it.

    Args:
        lattice: What the page shows.
        port: 0 for one that is free.
        title: The page's heading.

    Raises:
        SpecError: The lattice is too large for a page.
        OSError: The port is taken.
    """
    page = lattice_page(lattice, title=title, served=True).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            where = urlsplit(self.path)
            # Another page that has its name point here must not be able to ask.
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            if host not in ("127.0.0.1", "localhost"):
                self.answer(403, b"Only this machine may ask.", "text/plain")
            elif where.path == "/":
                self.answer(200, page, "text/html; charset=utf-8")
            elif where.path == "/ask":
                said = answer(parse_qs(where.query).get("loss", [""])[0], lattice)
                self.answer(200, json.dumps(said, ensure_ascii=False).encode(), "application/json")
            else:
                self.answer(404, b"There is nothing here.", "text/plain")

        def answer(self, code: int, body: bytes, kind: str) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", _POLICY)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)


def answer(text: str, lattice: Lattice) -> dict[str, object]:
    """What a typed formula, equation, name or column is, and where it stands; or the error."""
    text = text.strip()
    if not text or len(text) > _LONGEST:
        return {"error": f"Type a formula, an equation or a name, of at most {_LONGEST} characters."}
    try:
        structure = _structure(text)
        if len(structure.atoms) > 4:
            return {"error": f"The page shows at most four propositions (this has {len(structure.atoms)})."}
        return placed(text, structure, dict(lattice.nodes))
    except PrefalignError as error:
        return {"error": str(error)}


def _structure(text: str) -> PreferenceStructure:
    try:
        found = as_rules(text, "loss")
    except PrefalignError as error:
        try:
            return PreferenceStructure.from_formulas(parse_formula(text))
        except PrefalignError:
            raise error from None
    return found if isinstance(found, PreferenceStructure) else found.structure
