"""How many tokens the pairs have, how they fit into batches, and what that saves."""
