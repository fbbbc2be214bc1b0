"""The optimizers that a recipe calls by their plain names, and their usual rate beside AdamW's."""

from __future__ import annotations

# name -> its rate over AdamW's where the recipe gives no learning rate. Adam's family and Muon (whose step is scaled to
# AdamW's size) take the same rate; Lion's step is the sign alone, so it takes a third to a tenth (arXiv:2302.06675);
# SGD with momentum on pretrained layers takes 10 to 100 times as much (arXiv:2010.11929 fine-tunes a ViT at 0.003 to
# 0.03); Adagrad and Adadelta divide by all gradients so far, and take 10 and 1000 times (their defaults in torch).
RATE_OVER_ADAMW: dict[str, float] = {
    "sgd": 30.0,
    "adam": 1.0,
    "adamw": 1.0,
    "adagrad": 10.0,
    "rmsprop": 1.0,
    "adadelta": 1000.0,
    "adamax": 2.0,
    "lion": 0.2,
    "muon": 1.0,
}
PLAIN_OPTIMIZERS = tuple(RATE_OVER_ADAMW)
