"""Which pixels a prediction rests on: LIME and the CAMs, as `Explanation` records."""
