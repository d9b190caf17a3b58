"""Truth tables: the names of atoms, rows as bit masks, and the shortest formulas of a set of rows."""
