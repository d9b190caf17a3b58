"""From code to expressions: a loss function runs on symbolic tensors."""
