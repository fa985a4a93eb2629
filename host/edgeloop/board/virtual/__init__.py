"""Virtual ARM boards under QEMU, for trying and testing: images of Debian packages, and machines that run them."""
