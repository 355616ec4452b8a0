"""What checkers know of the results. The comment behind a line is what they are to say of it."""

from pathlib import Path

import torch
from torch import nn
from typing_extensions import reveal_type

import senetzoo
from senetzoo import ECA, SE, stage

model = senetzoo.create("resnet50")
reveal_type(model)  # Classifier
reveal_type(senetzoo.load(Path("folder")))  # Classifier
reveal_type(senetzoo.config("resnet50"))  # ModelSpec
reveal_type(senetzoo.config("resnet50").build())  # Classifier
reveal_type(senetzoo.transforms(model))  # Preprocessing
reveal_type(senetzoo.explain("resnet50"))  # Explanation
reveal_type(senetzoo.list_models())  # list[str]
reveal_type(senetzoo.attach(nn.Sequential(), SE()))  # Attached
reveal_type(senetzoo.detach(nn.Sequential()))  # Sequential
reveal_type(senetzoo.optimize(model, torch.ones(1)))  # Optimized
reveal_type(senetzoo.evaluate(model, "photos"))  # Predictions
reveal_type(senetzoo.export(model, "net.onnx"))  # Export
reveal_type(senetzoo.push(model, "owner/name"))  # str
reveal_type(model.load_report)  # LoadReport | None
reveal_type(model.feature_maps(torch.ones(1)))  # list[Tensor]
reveal_type(SE().at("pre"))  # Policy
reveal_type(SE() + ECA())  # Policy
reveal_type(SE().on(stage(1)))  # Policy
reveal_type(~stage(1))  # Selector
reveal_type(senetzoo.__version__)  # str
