"""The maker of a board's image, a program of its own that is run under fakeroot: `... rootfs SPEC.json FOLDER`.

Debian packages are unpacked, and nothing of them is run, so no ARM code is emulated and no root is needed; what their
scripts would have set up, and a board needs, is written here. Out come `vmlinuz`, `initrd` and `root.img`. Nothing in
them is a secret: keys come in at each start, in an archive that follows the initrd.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgeloop.board.virtual.initramfs import Member, archive

USER, USER_ID = "edge", 1000
_MODULES = (  # in the order of loading
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_ring",
    "net/core/failover",
    "drivers/net/net_failover",
    "drivers/virtio/virtio_mmio",
    "drivers/block/virtio_blk",
    "drivers/net/virtio_net",
    "drivers/char/hw_random/virtio-rng",
)
_NOT_UNPACKED = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info")
_NOT_KEPT = (*_NOT_UNPACKED, "boot", "lib/modules")

# The first program: loads what the disk and the network need, hands the board its keys, goes over to the disk.
_EARLY = """\
#!/bin/busybox sh
B=/bin/busybox
$B mount -t devtmpfs d /dev; $B mount -t proc p /proc; $B mount -t sysfs s /sys
for m in {modules}; do $B insmod /m/$m.ko; done
i=0; while [ ! -b /dev/vda ] && [ $i -lt 100 ]; do $B sleep 0.1; i=$((i+1)); done
$B mount -t ext4 -o noatime /dev/vda /r || echo BOARD-HAS-NO-DISK
umask 077; $B cp /board/ssh_host_ed25519_key /board/authorized_keys /r/etc/ssh/; $B cp /board/hostname /r/etc/hostname
$B chmod 644 /r/etc/ssh/authorized_keys /r/etc/hostname; umask 022
for d in dev proc sys; do $B mount --move /$d /r/$d; done
exec $B switch_root /r /sbin/init
"""
_SETUP = """\
#!/bin/busybox sh
B=/bin/busybox
$B mkdir -p /dev/pts /dev/shm; $B mount -t devpts -o gid=5,mode=620 devpts /dev/pts
$B mount -t tmpfs -o mode=755 t /run; $B mount -t tmpfs -o mode=1777 t /tmp; $B mount -t tmpfs -o mode=1777 t /dev/shm
$B mkdir -p /run/sshd; $B hostname -F /etc/hostname
$B ip link set lo up; $B ip addr add 10.0.2.15/24 dev eth0; $B ip link set eth0 up
echo BOARD-READY
"""
# The console is the power button: whoever holds the machine may write a word to it.
_CONSOLE = """\
#!/bin/busybox sh
while read -r word; do
  case "$word" in poweroff) exec /bin/busybox poweroff;; reboot) exec /bin/busybox reboot;; esac
done
"""
_INITTAB = """\
::sysinit:/sbin/board-setup
::respawn:/usr/sbin/sshd -D -E /run/sshd.log
::respawn:/sbin/board-console
"""
_SSHD = """\
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin no
MaxAuthTries 40
MaxStartups 100
UseDNS no
Subsystem sftp internal-sftp
"""


def main(spec_path: str, out_path: str) -> None:
    """Make the image that SPEC.json describes (see image.Spec) in FOLDER, which exists and is empty."""
    spec: dict[str, Any] = json.loads(Path(spec_path).read_text(encoding="utf-8"))
    out = Path(out_path)
    root = out / "root"
    _unpack(spec, root)
    kernel = next(iter(sorted((root / "boot").glob("vmlinuz-*"))), None)
    if kernel is None:
        raise SystemExit("no kernel among the packages")
    shutil.copyfile(kernel, out / "vmlinuz")
    _write_initrd(root, out / "initrd")
    _arrange(root, spec["multiarch"])
    _mke2fs(spec, root, out / "root.img")
    shutil.rmtree(root)


def _unpack(spec: dict[str, Any], root: Path) -> None:
    architectures = [spec["arch"], *([spec["kernel_arch"]] if spec["kernel_arch"] != spec["arch"] else [])]
    kernel = spec["kernel"] + ("" if len(architectures) == 1 else f":{spec['kernel_arch']}")
    argv = ["mmdebstrap", "--quiet", "--mode=chrootless", "--variant=extract"]
    argv += [f"--architectures={','.join(architectures)}", f"--include={','.join([*spec['packages'], kernel])}"]
    argv += [f"--dpkgopt=path-exclude=/{folder}/*" for folder in _NOT_UNPACKED]
    argv += [f"--aptopt={option}" for option in spec["apt_options"]]
    _run([*argv, spec["suite"], str(root), spec["mirror"]])


def _write_initrd(root: Path, path: Path) -> None:
    modules = next(iter((root / "lib/modules").iterdir())) / "kernel"
    members = [Member(folder, 0o755) for folder in ("bin", "m", "dev", "proc", "sys", "r", "board")]
    names = []
    for module in _MODULES:
        module_file = modules / f"{module}.ko"
        if not module_file.is_file():
            raise SystemExit(f"the kernel has no module {module}")
        names.append(module_file.stem)
        members.append(Member(f"m/{module_file.name}", 0o644, module_file.read_bytes()))
    members.append(Member("bin/busybox", 0o755, (root / "bin/busybox").read_bytes()))
    members.append(Member("init", 0o755, _EARLY.format(modules=" ".join(names)).encode()))
    path.write_bytes(gzip.compress(archive(members), compresslevel=1))


def _arrange(root: Path, multiarch: str) -> None:
    for folder in _NOT_KEPT:
        shutil.rmtree(root / folder, ignore_errors=True)
    _write(
        root / "etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\n"
        "sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n"
        f"{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    )
    _write(root / "etc/group", f"root:x:0:\ntty:x:5:\n{USER}:x:{USER_ID}:\nnogroup:x:65534:\n")
    _write(root / "etc/shadow", f"root:*:19000::::::\nsshd:*:19000::::::\n{USER}:*:19000::::::\n", 0o600)
    _write(root / "etc/hosts", "127.0.0.1 localhost\n")
    _write(root / "etc/inittab", _INITTAB)
    _write(root / "etc/ssh/sshd_config", _SSHD)
    _write(root / "sbin/board-setup", _SETUP, 0o755)
    _write(root / "sbin/board-console", _CONSOLE, 0o755)
    # What dpkg's triggers and alternatives would have linked.
    _link(root / "sbin/init", "/bin/busybox")
    _link(root / "usr/bin/awk", "mawk")
    if not os.path.lexists(root / "bin/sh"):
        _link(root / "bin/sh", "dash")
    for library in ("blas/libblas.so.3", "lapack/liblapack.so.3"):
        _link(root / "usr/lib" / multiarch / Path(library).name, library)
    for folder, mode in (("tmp", 0o1777), ("var/tmp", 0o1777), ("root", 0o700), ("dev/pts", 0o755), ("run", 0o755)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder).chmod(mode)
    home = root / "home" / USER
    home.mkdir()
    os.chown(home, USER_ID, USER_ID)
    # Packages bring no compiled Python, and compiling it takes ten seconds there: it is kept at the first use.
    for package in {module.parent for module in (root / "usr/lib").rglob("*.py")}:
        (package / "__pycache__").mkdir(exist_ok=True)
        os.chown(package / "__pycache__", USER_ID, USER_ID)


def _mke2fs(spec: dict[str, Any], root: Path, image: Path) -> None:
    _run([spec["mke2fs"], "-q", "-t", "ext4", "-m", "0", "-d", str(root), str(image), f"{spec['disk_mib']}M"])


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _run(argv: list[str]) -> None:
    process = subprocess.run(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if process.returncode != 0:
        sys.stderr.write(process.stderr)
        raise SystemExit(f"{argv[0]} ended with {process.returncode}")


if __name__ == "__main__":
    main(*sys.argv[1:])
