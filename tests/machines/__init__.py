"""State machines under random use, each beside a slow oracle that cannot be wrong."""
