"""What is measured: methods beside their baselines, the costs of calls, recorded runs.

`rows` declares what a measurement gives, and its columns; `contests` says who runs against whom on what, `sides` how a
side is run, `kinds` what depends on the kind of call, `pairs` times successive runs, `machine` and `vocabularies` say
what figures and texts depend on, and `updating` puts what was measured anew among what is stored. Each of the others is
a measurement: `bench` of real runs, `costs` and `recording` of single calls, `synthetic` of an acceptance that one asks
for, `peers` beside transformers (`their_generate`), `acceptance_rates` of one run counted in five ways, `contrasts` and
`relaxations` of quality beside speed, `copying` of texts that quote, `warming` of a trie that learns, `divergences` of
a drafter that does, `draft_lengths` in batches of many sizes, `chunks` of the time between tokens, `traces` of the runs
that pages show, `speedup` and `counterexamples` (of `published_rules`) by computing. Stored figures lie in `results/`.
"""
