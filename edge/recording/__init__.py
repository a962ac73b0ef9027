"""Video on disk: clips, fragments, index, retention."""
