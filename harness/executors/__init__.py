"""Which process runs which cells, and where."""
