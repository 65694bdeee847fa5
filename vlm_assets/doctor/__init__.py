"""What is wrong with this deployment, and what to do about it: one finding per thing looked at."""
