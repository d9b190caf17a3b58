"""Pages to look at losses with: one loss, two side by side, or a whole lattice to click through."""

from ._page import explanation_page as explanation_page
from ._page import lattice_page as lattice_page
from ._server import make_server as make_server
