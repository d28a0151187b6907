"""Caches that people share: records by key and trees by their bytes, in places that are trusted with nothing."""
