"""The captioner at work: pictures in, captions out. Knows nothing of how the model was made."""

import os

# Idle OpenMP threads spin before they sleep. With libgomp's default, other load slowed two threads of training from 215
# to 5 pictures/s; sleeping at once (OMP_WAIT_POLICY=PASSIVE) costs a third on a quiet machine. A short spin is the
# compromise (figures: docs/decisions.md). libgomp reads this once, when torch is loaded: it stands here, not beside
# the import of torch.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
