"""Reference implementations to read and to copy: methods, what they share, trained models, and the proofs."""
