"""From a source of pictures and captions to clean, leak-proof, model-ready shards."""
