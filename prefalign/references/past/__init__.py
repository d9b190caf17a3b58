"""References from the policy's own past: snapshots, and what is drawn from them."""
