"""The forward pass: a pair's common prefix once, padding never, the head where a token is scored."""
