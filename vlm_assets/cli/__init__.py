"""The two commands behind `make up` and `make demo`."""
