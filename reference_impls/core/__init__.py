"""What methods share, one idea a module; a method imports names from here and from nowhere else in the project.

Models: `layers` are what every model is built of, `model` is the decoder, `seq2seq` the encoder-decoder,
`from_transformers` copies other people's weights into the decoder, `cache` holds keys and values, `batch` runs several
sequences in one pass, `device` finds where tensors can be. Chance: `sampling` makes laws of logits and tokens of laws.
Guesses: `drafting` makes them, `tree` lays them out for one pass, `verify` accepts them. Less than a whole decoder:
`exits` reads a model out early, `lengths` says how long a text will be, `rescoring` chooses among several. Training:
`distillation` says how far a drafter is from its target. Around a method: `arguments` checks what a caller gives,
`generation` is what a method returns.
"""
