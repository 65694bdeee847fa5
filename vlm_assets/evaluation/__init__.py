"""How good the captions are: metrics with intervals, slices, a report."""
