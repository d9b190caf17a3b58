"""What training on a set of pairs would trip over, found before any weights load."""

from ._text import common_length as common_length
