"""The tool around the reference implementations: it describes, trains, measures, exports and shows them.

Its rooms, from bottom to top; each imports only those named before it, and `reference_impls` imports none of them:
`project` (places, files), `taxonomy` (what is known), `exports` (citations, standalone files), `checkpoints` (models of
other people), `training` (the zoo's recipes), `measuring`, `site`, `workshop` (what a method still lacks, and its first
lines), `cli`.
"""
