"""The VAE, stacking and weights."""

import os
import pwd

# A container may run as a user without a name, for which MONAI and PyTorch ask as they are imported.
try:
    pwd.getpwuid(os.getuid())
except KeyError:
    os.environ.setdefault("USER", f"user-{os.getuid()}")
