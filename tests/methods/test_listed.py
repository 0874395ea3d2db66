"""What `bench list models` and `recipes` show is what the methods have, those of other packages among them."""

import json

from bench.config.methods import BUILT_IN
from bench.methods import listed
from tests.methods.test_registry import TOY, install

OFFERING = f"""
import torch
from bench.training.architectures import Network
from bench.types import Task
{TOY}
def networks():
    task = Task(dataset="", channels=1, image_size=2, num_classes=3)
    body = torch.nn.Linear(4, 3, device="meta")
    yield Network(name="toy-net", task=task, body=body, forward=lambda x: body(x.flatten(1)))

def recipe_tables():
    return [(("--set toy.recipe", "epochs"), [("quick", "1")])]
"""


def test_the_kept_tables_are_those_of_the_methods():
    kept, anew = json.loads(listed.LISTED.read_text()), json.loads(json.dumps(listed.asked(BUILT_IN)))
    assert kept == anew, "write them anew: python -m bench.methods.listed"


def test_methods_of_other_packages_are_asked(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, module="toy_that_offers", source=OFFERING)
    [(_, models)], recipes = listed.model_tables(), dict(listed.recipe_tables())
    assert models[-1] == ("toy-net", "1x2x2", "15", "0", "0", "24")
    assert len(models) > 5
    assert recipes["--set toy.recipe", "epochs"] == [("quick", "1")]
    assert len(recipes) > 1
