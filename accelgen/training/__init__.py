"""How the models of the zoo are made: one recipe for each trained part."""
