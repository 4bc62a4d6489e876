"""The scripts' options: the only part of the package that knows what was parsed, called args."""

from ad.options.add import (add_data_arguments, add_model_arguments, add_scoring_arguments,
                            add_training_arguments)
from ad.options.read import (check_model, check_training, choice_from, config_of, given_scoring,
                             model_arguments, read_arguments, recipe_of, settle_epochs,
                             training_from)

__all__ = ["add_data_arguments", "add_model_arguments", "add_scoring_arguments",
           "add_training_arguments", "check_model", "check_training", "choice_from", "config_of",
           "given_scoring", "model_arguments", "read_arguments", "recipe_of", "settle_epochs",
           "training_from"]
