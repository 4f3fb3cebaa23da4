"""LongRoPE's search: evolve a divisor for each pair of channels, and n-hat."""
