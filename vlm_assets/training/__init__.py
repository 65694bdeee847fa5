"""Where a model starts, and how it is fine-tuned."""
