"""The engine around models, without any library of models: predictors are functions of the tests."""
