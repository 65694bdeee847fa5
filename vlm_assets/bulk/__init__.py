"""Captions for very many pictures at once, with the released model."""
