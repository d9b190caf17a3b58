"""The reference's log-probabilities, kept between steps and runs."""
