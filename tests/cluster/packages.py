"""What the local cluster needs from the distribution: Debian's names (Ubuntu has the same)."""

import os
import shutil

from tests.cluster.shell import ClusterError, run, say, step

# program → package
NEEDED = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "ethtool": "ethtool",
    "socat": "socat",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "busybox": "busybox-static",
    "buildah": "buildah",
    "containers-storage": "containers-storage",
    "mmdebstrap": "mmdebstrap",
}


def missing() -> list[str]:
    """Packages whose programs are not there."""
    return sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})


def install() -> None:
    """Install what is missing; needs root and apt."""
    packages = missing()
    if not packages:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise ClusterError(f"install these packages of your distribution (Debian's names): {', '.join(packages)}")
    say(f"installing {', '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with step("apt-get"):
        run(["apt-get", "update", "-qq"], env=environment)
        run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages], env=environment)
