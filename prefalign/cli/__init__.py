"""The command line: `prefalign COMMAND …`. A table of commands; each lives in its own module, imported when called."""

from ._main import main as main
