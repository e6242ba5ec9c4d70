"""What the methods are measured against; each has the shape of every method."""
