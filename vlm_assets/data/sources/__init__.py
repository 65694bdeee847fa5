"""Sources of captioned pictures, one file per format."""
