"""Whether explanations can be trusted: faithfulness, randomisation, stability."""
