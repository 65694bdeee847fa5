"""Makes captioning models: Dagster assets from pictures with captions to a released, watched captioner."""

import vlm_serving as vlm_serving  # settles how OpenMP threads wait, before torch is loaded
