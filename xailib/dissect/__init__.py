"""What units respond to: record activations, score concepts, label units."""
