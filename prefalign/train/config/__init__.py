"""The arguments of a run, checked before anything loads."""

from ._checks import REMOVED as REMOVED
from ._checks import WORDS as WORDS
from ._checks import check_args as check_args
from ._checks import check_arguments as check_arguments
from ._checks import check_names as check_names
from ._config import PrefConfig as PrefConfig
from ._foreign import FOREIGN as FOREIGN
from ._generation import DEFAULTS as DEFAULTS
from ._generation import given_options as given_options
from ._needs import check_best_model as check_best_model
from ._needs import check_format as check_format
from ._needs import check_images as check_images
from ._needs import check_is_dataset as check_is_dataset
from ._needs import check_packages as check_packages
from ._needs import check_vocabulary as check_vocabulary
from ._objective import Objective as Objective
from ._objective import mirror as mirror
from ._objective import put_together as put_together
