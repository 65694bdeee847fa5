"""Gate, ledger, deployment."""
