"""Sets of structures: conditions row by row, their sizes and their members."""
