"""One file for each trained part of the zoo, named like the method it serves, or by its own name where several do.

Each holds its `accelgen.training.recipe.Recipe` as RECIPE; `accelgen.training.making` finds it by looking here.
"""
