"""References that follow the policy: moving averages."""
