"""The tool around the reference implementations: it describes, trains, measures, exports and shows them.

Its rooms, from bottom to top; a room imports only those above it in this list, and `reference_impls` imports none:
`project` (places, files), `taxonomy` (what is known), `exports` (citations, standalone files), `checkpoints` (models of
other people), `training` (the zoo's recipes), `measuring`, `site`, `cli`.
"""
