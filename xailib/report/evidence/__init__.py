"""The evidence run: explanations and scores of hundreds of photographs on several networks."""
