"""torch.hub, in a separate process because it puts hubconf's folder on the path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from senetzoo.registry import ENTRIES

ROOT = Path(__file__).resolve().parent.parent

SCRIPT = """
import json, sys, torch
root = sys.argv[1]
# list and help have no source="local", but look in torch.hub's folder before the network.
torch.hub.set_dir(sys.argv[2])
cached = {"skip_validation": True, "trust_repo": True, "verbose": False}
listed = torch.hub.list("owner/senetzoo:main", **cached)
helps = {
    name: torch.hub.help("owner/senetzoo:main", name, skip_validation=True, trust_repo=True)
    for name in listed[::9] + ["se_resnet50", "resnet20"]
}
model = torch.hub.load(
    root, "se_resnet18", source="local", num_classes=10, stem="cifar", seed=3
)
import senetzoo
ours = senetzoo.create("se_resnet18", num_classes=10, stem="cifar", seed=3)
a, b = model.state_dict(), ours.state_dict()
same = list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)
try:
    torch.hub.load(root, "resnet20", source="local", num_clases=10)
    error = None
except Exception as caught:
    error = [type(caught).__name__, str(caught)]
try:
    torch.hub.load(root, "resnt20", source="local")
    unknown = None
except RuntimeError as caught:
    unknown = str(caught)
print(json.dumps([listed, helps, same, model.num_classes, error, unknown]))
"""


def test_hub(tmp_path: Path) -> None:
    (tmp_path / "owner_senetzoo_main").symlink_to(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT), str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    listed, helps, same, classes, error, unknown = json.loads(done.stdout.splitlines()[-1])
    assert sorted(listed) == sorted(ENTRIES)
    for name, text in helps.items():
        assert text.startswith(f"{name}: ")
    assert helps["se_resnet50"] == (
        "se_resnet50: 1000 classes, 3x224x224 images, gates: se.\n\n"
        "Options: those of senetzoo.create, such as pretrained and policy."
    )
    assert helps["resnet20"].startswith("resnet20: 10 classes, 3x32x32 images, gates: none.\n")
    assert same
    assert classes == 10
    assert error == [
        "ConfigError",
        "create() has no option 'num_clases'.\nDid you mean 'num_classes'?",
    ]
    assert unknown is not None
    assert "resnt20" in unknown
