"""From expressions to logic: cases, log ratios, rules, and the check against the code."""
