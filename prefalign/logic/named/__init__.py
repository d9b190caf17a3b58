"""The losses with names, and what is looked up by name."""

from ._catalogue import Entry as Entry
from ._catalogue import catalogue as catalogue
from ._lookup import Known as Known
from ._lookup import known_losses as known_losses
from ._read import Readable as Readable
from ._read import as_rules as as_rules
from ._read import as_structure as as_structure
from ._read import is_column as is_column
