"""The captioner at work: pictures in, captions out. Knows nothing of how the model was made."""
