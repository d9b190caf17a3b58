"""Checkpoints: which are whole, what they belong to, and the last good one."""

from ._binding import binding_of as binding_of
from ._binding import check_binding as check_binding
from ._finite import bad_rows as bad_rows
from ._finite import check_weights as check_weights
from ._finite import stop as stop
from ._lock import alone_in as alone_in
from ._lock import check_alone as check_alone
from ._record import extend_card as extend_card
from ._record import run_record as run_record
from ._record import write_run as write_run
from ._start import StartCheck as StartCheck
from ._start import rounding as rounding
from ._whole import LAST_FILE as LAST_FILE
from ._whole import check_output_dir as check_output_dir
from ._whole import find_checkpoint as find_checkpoint
from ._whole import finish as finish
from ._whole import last_good as last_good
from ._whole import rotate as rotate
