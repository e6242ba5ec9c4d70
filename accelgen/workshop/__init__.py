"""For people who add a method: a skeleton to begin with, and what a method still lacks to be done."""
