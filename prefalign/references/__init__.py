"""References: what the policy is compared with."""

from ._base import Batch as Batch
from ._base import Host as Host
from ._base import Policy as Policy
from ._base import Reference as Reference
from ._base import State as State
from ._draw import check_plot as check_plot
from ._draw import draw_path as draw_path
from ._fixed import Checkpoint as Checkpoint
from ._fixed import GivenModel as GivenModel
from ._fixed import Initial as Initial
from ._fixed import NoReference as NoReference
from ._fixed import check_tokenizer as check_tokenizer
from ._fixed import fingerprint as fingerprint
from ._held_out import HeldOut as HeldOut
from ._moving_average import BEMA as BEMA
from ._moving_average import MovingAverage as MovingAverage
from ._parse import parse_reference as parse_reference
from ._parse import reference_names as reference_names
from ._path import Landscape as Landscape
from ._path import path as path
from ._recipe import SoupReport as SoupReport
from ._soup import Soup as Soup
from ._soup import soup as soup
from ._state import load_state as load_state
from ._state import save_state as save_state
from ._state import write_json as write_json
