"""One training of the demo, as a person would write it: `python -m initscope.hooks.demo.train NAME`.

Prints {"trivial_loss": 2.3} and then a line of JSON a step: {"step": 3, "loss": 2.1}; a loss that is not finite
travels as text.
"""

from __future__ import annotations

import json
import sys

import torch

from initscope.hooks import watch
from initscope.hooks.demo import catalogue, recipes
from initscope.hooks.encoding import number_to_json


def train(name: str) -> None:
    """Runs the training and tells each step's loss on standard output."""
    run = catalogue.find(name)
    torch.set_num_threads(1)
    training = recipes.build(name)
    print(json.dumps({"trivial_loss": training.data.trivial_loss}), flush=True)
    monitor = watch(training.model)
    for step, (inputs, labels) in zip(range(run.steps), training.data.batches, strict=False):
        loss = training.step(inputs, labels)
        monitor.log(loss=loss)
        print(json.dumps({"step": step, "loss": number_to_json(loss.item())}), flush=True)
    monitor.close()


if __name__ == "__main__":
    train(sys.argv[1])
