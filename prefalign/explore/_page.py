"""Self-contained HTML: no script, style or picture from elsewhere."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from .._errors import SpecError
from ..logic import Explanation, Lattice, draw_fields
from ._nodes import lattice_nodes

MAX_NODES = 60


def lattice_page(lattice: Lattice, *, title: str = "", served: bool = False) -> str:
    """The page of a lattice to click through, as text.

    Args:
        lattice: Of at most 60 structures over at most four propositions.
        title: The heading.
        served: Whether a server answers what is typed into it.

    Raises:
        SpecError: The lattice is larger.
    """
    if len(lattice) > MAX_NODES or len(lattice.atoms) > 4:
        raise SpecError(
            f"a page holds at most {MAX_NODES} structures over four propositions (got {len(lattice)} over "
            f"{len(lattice.atoms)})."
        )
    data = {**lattice_nodes(lattice), "served": served}
    return _rendered("explore.html.j2", title=title or "Preference losses", data=_script_safe(data), served=served)


def explanation_page(
    explanations: Sequence[Explanation],
    *,
    title: str = "",
    at: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """The page of one loss, or of several side by side: what each means, and its picture.

    Args:
        explanations: What `explain` made.
        title: The heading; default: the losses' titles.
        at: As in `Explanation.draw`.
        notes: Said at the end.

    Raises:
        SpecError: Matplotlib is missing.
    """
    shown = []
    for each in explanations:
        picture = ""
        if each.described:  # else there is nothing to draw: a loss of one answer
            with tempfile.TemporaryDirectory() as folder:
                picture = base64.b64encode(
                    draw_fields(each.titled, Path(folder) / "loss.svg", at).read_bytes()
                ).decode()
        shown.append({"title": each.title, "text": str(each), "picture": picture, "described": each.described})
    heading = title or " and ".join(each.title for each in explanations)
    return _rendered("explain.html.j2", title=heading, losses=shown, notes=list(notes))


def _rendered(name: str, **values: Any) -> str:
    from jinja2 import Environment

    template = (files(__package__) / name).read_text("utf-8")
    style = (files(__package__) / "style.css").read_text("utf-8")
    made = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    return made.render(style=style, **values) + "\n"


def _script_safe(data: object) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
