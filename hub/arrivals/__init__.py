"""New documents: found as they come, and asked for by the days that they touch."""
