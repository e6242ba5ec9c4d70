"""What is known: the taxonomy, how it is read, which proofs a method owes."""
