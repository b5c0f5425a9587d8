"""A double of pip's bootstrap script, for ansible-test where that script can't be fetched: ensurepip brings pip."""

import os
import subprocess
import sys

os.environ.pop("PIP_CONFIG_FILE", None)
subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
wanted = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.run([sys.executable, "-m", "pip", "install"] + wanted, check=False).returncode)
