# Debian's virtio driver: an address, a file to the guest, the same back by a port forward.
network_case net
