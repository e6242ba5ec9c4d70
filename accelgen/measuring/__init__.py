"""What is measured: methods beside their baselines, the costs of calls, recorded runs.

Stored figures lie in `results/`, and each is shown on a page below `docs/`. The modules without a file of results serve
the others, or answer at once.

module                     results file        page, or what it says
`bench`                    bench.json          measured.md, and the page of each method
`costs`, `recording`       costs.json          measured.md: what the costs of single calls promise
`peers`, `their_generate`  peers.json          measured.md: beside transformers
`traces`                   traces/ID.json      the page of each method, explore/replay.md
`acceptance_rates`         acceptance.json     explore/acceptance.md
`draft_lengths`            draft-lengths.json  explore/batches.md
`chunks`                   chunks.json         explore/batches.md
`copying`                  copying.json        explore/copying.md
`warming`                  warming.json        explore/warming.md
`divergences`              divergences.json    explore/distilling.md
`contrasts`                contrasts.json      the page of the method: quality beside speed
`relaxations`              relaxations.json    the page of the method: quality beside speed
`counterexamples`          errata.json         explore/errata.md
`synthetic`                                    the gain at an acceptance that one asks for
`speedup`                                      the gain by formulas, as explore/calculator.md has them
`rows`                                         what a measurement gives, and its columns
`contests`                                     who runs against whom on what
`sides`                                        how a side is run
`kinds`                                        what depends on the kind of call
`pairs`                                        successive runs, timed, and what they tell
`published_rules`                              rules as others published them, which the errata try
`updating`                                     rows of a few methods among those that are stored
`machine`                                      the machine that figures depend on
`vocabularies`                                 how texts become tokens, and tokens texts
"""
