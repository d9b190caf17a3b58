"""Truth tables: the names of atoms, rows as bit masks, and the shortest formulas of a set of rows."""

from ._atoms import MAX_ATOMS as MAX_ATOMS
from ._atoms import atom_key as atom_key
from ._atoms import canonical as canonical
from ._atoms import chosen_of as chosen_of
from ._atoms import is_atom as is_atom
from ._atoms import is_reference as is_reference
from ._atoms import original as original
from ._atoms import pair_atoms as pair_atoms
from ._literals import count_literals as count_literals
from ._literals import function_costs as function_costs
from ._literals import literal_array as literal_array
from ._masks import atom_mask as atom_mask
from ._masks import bits as bits
from ._masks import drop as drop
from ._masks import full_mask as full_mask
from ._masks import lift as lift
from ._masks import rename as rename
from ._masks import split as split
from ._masks import support as support
from ._minimise import EXACT_ATOMS as EXACT_ATOMS
from ._minimise import Cube as Cube
from ._minimise import NormalForm as NormalForm
from ._minimise import shortest as shortest
