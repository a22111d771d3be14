"""Recipes for tests of training cores."""

from narrowgauge.golden import recipes


def recipe_of(name, work="bf16", update="plain", parameters=None, **settings):
    made = recipes.work_in(recipes.make(name, **settings), work)
    return recipes.keep(made, parameters, update).with_head(10)
