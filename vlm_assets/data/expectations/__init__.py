"""What must hold of the snapshot, the splits and the shards, as Great Expectations suites, and the page that shows it.

These modules import Great Expectations (3 s); the code location imports them only when a check runs. An artifact is
checked as a few tables (its pictures, its captions, its files, ...), each with a suite of its own. Critical
expectations stop the run, warnings are shown; tests/unit/vlm_assets/data/test_expectations.py sees each of them fail.
"""
