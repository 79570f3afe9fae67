# Becomes a node: runs in a network and a mount namespace of its own, gives the node private copies of the places that
# kubelet, containerd and CNI plugins insist on, and then holds the namespaces open. When every program of the node is gone,
# the kernel removes the namespaces with all mounts and interfaces in them.
set -eu
state=$1
mount --make-rshared /
for place in /var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers; do
  mkdir -p "$state/places$place"
  mount --bind "$state/places$place" "$place"
done
# kubelet volumes must be seen by containers that are already there
mount --make-rshared /var/lib/kubelet
for place in /run/containerd /run/netns; do
  mount -t tmpfs -o mode=0755 falcon-finetune "$place"
done
: > "$state/namespaces-ready"
exec sleep infinity
