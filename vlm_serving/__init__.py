"""The captioner at work: pictures in, captions out. Knows nothing of how the model was made."""

import os

# Idle OpenMP threads must sleep, not spin: with anything else on the cores, training at batch 32 on 2 threads fell from
# 80 to 5 pictures/s. libgomp reads this once, when torch is loaded, so it stands here and not beside torch's import.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
