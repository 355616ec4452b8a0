"""Each statement is wrong, and checkers are to say so of its line, and of no other."""

import senetzoo
from senetzoo import ECA, SE, Place, stage

senetzoo.create("resnet50", polcy="se")
senetzoo.create("resnet50", num_classes="10")
senetzoo.create(50)
senetzoo.create("resnet50", channels="mean")
senetzoo.config("resnet50").bild()
senetzoo.optimize(senetzoo.create("resnet50"))
SE(reducton=8)
SE(act="tanh")
SE(width="round7")
SE().at("front")
SE().on("s1")
ECA() + 3
stage(1) + stage(2)
Place("layer1", position="behind")
senetzoo.attach("resnet50", SE())
print(senetzoo.explain("resnet50").row)
senetzoo.crate("resnet50")
