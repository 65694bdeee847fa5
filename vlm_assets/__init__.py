"""Makes captioning models: Dagster assets from pictures with captions to a released, watched captioner."""
