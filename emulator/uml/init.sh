#!/bin/busybox sh
# /init of the real guest: loads the balloon driver, then does what it is told.
#
# A command is a line on the console: the name of a function below and its words.  Each answers
# with lines that begin with MARK and the guest's uptime in seconds; everything else on the console
# is the kernel's.

export PATH=/bin
/bin/busybox mkdir -p /proc /sys /fill /keep
/bin/busybox --install -s /bin
mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
# Without a limit: a fill must be able to ask for more than there is.
mount -t tmpfs -o size=0 tmpfs /fill
mount -t tmpfs tmpfs /keep
stty -echo

mark() {
    read -r uptime rest </proc/uptime
    echo "MARK $uptime $*"
}

mem_kib() { awk -v "key=$1:" '$1 == key { print $2 }' /proc/meminfo; }

# What the kernel knows of its memory: the zone with pages in it, in pages, and the free blocks of
# each order.
memory() {
    awk -v OFS== '
        $1 == "Node" { zone = $4 }
        zone == "Normal" && /^ +(min|low|high|spanned|managed) / { print $1, $2 }
    ' /proc/zoneinfo | while read -r figure; do mark "memory $figure"; done
    mark "memory $(sed -n 's/.*zone *Normal *//p' /proc/buddyinfo | tr -s ' ' , | sed 's/^/free=/; s/,$//')"
    mark "memory done"
}

# Take so many percent of what is free now: a file, written once.
fill() {
    mib=$(($(mem_kib MemFree) * $1 / 100 / 1024))
    mark "fill $mib"
    dd if=/dev/zero of=/fill/file bs=1M count="$mib" 2>/dev/null
    mark "full $(($(stat -c %s /fill/file) >> 20))"
}

empty() {
    mark "empty"
    rm -f /fill/file
    mark "emptied"
}

# A file of so many MiB that no discard may harm; and what is in it.
keep() {
    dd if=/dev/urandom of=/keep/file bs=1M count="$1" 2>/dev/null
    checksum
}

checksum() {
    sum=$(sha256sum </keep/file)
    mark "checksum ${sum%% *}"
}

off() { poweroff -f; }

free_kib() { mark "free_kib $(mem_kib MemFree)"; }

insmod /virtio_balloon.ko
mark "start $(uname -r)"
while read -r command; do
    $command
done
