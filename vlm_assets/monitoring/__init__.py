"""What was asked of the released model, how far that is from what it was validated on, and when to retrain."""
