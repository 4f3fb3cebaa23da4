"""Tables and figures from results. Reads files, runs nothing: no torch."""
