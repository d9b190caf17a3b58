"""`prefalign explore [LOSS ...]`: the lattice of losses to click through, served here or written as one page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .._errors import SpecError
from ._arguments import LOSS_HELP


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("losses", metavar="LOSS", nargs="*", help=f"{LOSS_HELP}; default: the authors' sixteen losses")
    parser.add_argument(
        "-o", "--output", metavar="PAGE", help="write one self-contained .html page instead of serving it"
    )
    parser.add_argument(
        "--port", type=int, default=0, help="the port to serve on, on this machine alone (default: a free one)"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")


def run(args: argparse.Namespace) -> int:
    """Write the page, or serve it until interrupted."""
    from ..explore import lattice_page, make_server
    from ..logic import Lattice, catalogue

    lattice = Lattice(args.losses or {entry.name: entry.structure for entry in catalogue.table})
    if args.output:
        path = Path(args.output)
        if path.suffix.lower() not in (".html", ".htm"):
            raise SpecError(f"`--output` must end in .html (got {path.name!r}).")
        if not path.parent.is_dir():
            raise SpecError(f"`--output` must lie in a folder that exists (got {args.output!r}).")
        path.write_text(lattice_page(lattice), "utf-8")
        print(f"wrote {path}")
        return 0
    try:
        server = make_server(lattice, args.port)
    except OSError as error:
        raise SpecError(f"port {args.port} cannot be served on: {error.strerror}.") from None
    with server:
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        print(f"exploring at {url} (stop with Ctrl-C)", flush=True)
        if not args.no_browser:
            import webbrowser

            webbrowser.open(url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)
    return 0
