"""`python -m prefalign` is `prefalign`."""

from .cli import main

raise SystemExit(main())
