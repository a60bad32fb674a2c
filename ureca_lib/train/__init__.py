"""Training: the tiny base, and the two stages (App. A) from a base to a captioner."""
