"""Write the weights of the example: `python make_model.py [body_and_bone.pt]`."""

import sys
from pathlib import Path

import torch
from network import BodyAndBone

path = Path(sys.argv[1] if len(sys.argv) > 1 else "body_and_bone.pt")
torch.save(BodyAndBone().state_dict(), path)
print(f"wrote {path}")
