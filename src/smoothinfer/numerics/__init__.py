"""Mathematics that knows no model: norm balls, random streams, intervals, number formats."""
