# The first process of a node. It runs in namespaces that were made for it (processes, mounts, network), gives the node
# its own /run, /var/lib and /var/log, and then only waits: when it is killed, all of the node ends, mounts included.
# Its argument is the node's folder.
set -eu
node=$1

# First of all, and without a note of it, for notes of mounts are below /run.
mount -n -t tmpfs -o mode=755 lab /run
mount --make-rshared /
for folder in lib log; do
    mkdir -p "$node/var/$folder"
    mount --bind "$node/var/$folder" "/var/$folder"
done

# What kubelet insists on setting for the whole machine, it sets in these files.
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    file=$node/sysctl/$setting
    mkdir -p "${file%/*}"
    cat "/proc/sys/$setting" >"$file"
    mount --bind "$file" "/proc/sys/$setting"
done

: >"$node/made"
# `wait` also reaps those whose parents have gone.
while :; do
    sleep 3600 &
    wait
done
