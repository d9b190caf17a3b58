"""How losses relate: preference entailment, dominance, comparison, the lattice and its drawing."""
