"""Losses of judged answers: rankings, scores, ties and labels of any number of answers to a prompt."""
