# In the guest, with an IOMMU: the kernel makes filesystems on the NVMe devices, nvio reads them
# through VFIO, the kernel gets them back. All results are sections of the report; the host
# judges them.
#
# Device A has namespace 1 of 512-byte blocks and namespace 3 of 4096-byte blocks; device B has
# a partition table, and takes at most 32 KiB a command.
a=0000:00:10.0
b=0000:00:11.0
# Files for which the extent map is compared, beside their content; each is also read by a
# command of its own.
mapped='large sparse/every-kind sparse/only-a-hole sparse/one-block-in-three sparse/far
preallocated/whole preallocated/written-inside preallocated/tail-past-the-end
fragmented/scattered sizes/medium sizes/0-bytes'

driver_of() {
    basename "$(readlink -f "/sys/bus/pci/devices/$1/driver")"
}

# make TAG DISK: the kernel makes and describes a filesystem.
make() {
    must mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "/dev/$2"
    must mount -t ext4 -o noatime "/dev/$2" /mnt
    must ext4-tree populate /mnt 60 "${#1}"
    must dd if=/dev/urandom of=/mnt/large bs=1M count=16 conv=fsync 2>/dev/null
    must umount /mnt
    must mount -t ext4 -o ro,noatime "/dev/$2" /mnt
    ext4-tree view /mnt | section "$1.view"
    # A tebibyte of holes has no sum; its map and its data are compared.
    (cd /mnt && find * -type f -size -600000 -print0) >"/tmp/list.$1"
    tr '\0\n' '\n?' <"/tmp/list.$1" | section "$1.list"
    ext4-tree sums /mnt "/tmp/list.$1" | section "$1.sums"
    (cd /mnt && xargs -0 stat -c %s <"/tmp/list.$1") >"/tmp/sizes.$1"
    for path in $mapped; do
        filefrag -v "/mnt/$path" | section "$1.filefrag.$path"
    done
    must umount /mnt
}

# read_back TAG NAMESPACE: nvio reads the filesystem of a namespace of $device.
read_back() {
    flags="--namespace $2"
    run "$1.ls-text" nvio ls -lR $device / $flags
    run "$1.ls" nvio ls -lR --json $device / $flags
    run "$1.stat" nvio stat --json $device /large $flags
    run "$1.maps" nvio map --json $device $mapped $flags
    xargs -0 nvio cat $flags $device <"/tmp/list.$1" | ext4-tree slices "/tmp/sizes.$1" |
        section "$1.nvio-sums"
    for path in $mapped; do
        [ "$path" = sparse/far ] || nvio cat $device "/$path" $flags | sha256sum |
            section "$1.cat.$path"
    done
    nvio cat $device /large $flags --offset 12345678 --length 1000001 | sha256sum |
        section "$1.nvio-range"
    run "$1.cp" nvio cp -r $device / /tmp/copy $flags
    ext4-tree sums /tmp/copy "/tmp/list.$1" | section "$1.copy-sums"
    ext4-tree view /tmp/copy | section "$1.copy-view"
    rm -rf /tmp/copy
}

# mount_again TAG DISK: the kernel reads what it had written, and the filesystem is sound.
mount_again() {
    must mount -t ext4 -o ro,noatime "/dev/$2" /mnt
    ext4-tree sums /mnt "/tmp/list.$1" | section "$1.sums-again"
    tail -c +12345679 /mnt/large | head -c 1000001 | sha256sum | section "$1.range"
    must umount /mnt
    run "$1.e2fsck" e2fsck -fn "/dev/$2"
}

# huge_limits: nvio identifies $device in cgroups whose limits forbid 2 MiB pages.
huge_limits() {
    must mkdir /tmp/cgroup
    must mount -t cgroup2 cgroup2 /tmp/cgroup
    echo +hugetlb >/tmp/cgroup/cgroup.subtree_control
    for limit in max rsvd.max; do
        group=/tmp/cgroup/$limit
        must mkdir $group
        echo 0 >$group/hugetlb.2MB.$limit
        run huge-$limit sh -c "echo \$\$ >$group/cgroup.procs && exec nvio identify $device"
        section huge-$limit.events <$group/hugetlb.2MB.events
    done
}

# kernel_measures: `nvio perf --kernel` overwrites a file of device A, and then reads the pattern that
# nvio itself has written to the namespaces: by io_uring and by NVMe passthrough, with interrupts and by
# polling. Both sleep between the starts of a rate.
kernel_measures() {
    load='--size 4M --count 1500 --qd 8 --json'
    must mount -t ext4 -o noatime "/dev/$(disk_of $a 1)" /mnt
    run perf-file nvio perf --kernel /mnt/large --rw randrw --write --prepare --verify $load
    must umount /mnt
    must nvio bind $a >/dev/null
    for nsid in 1 3; do
        run perf-raw.$nsid nvio perf $a --raw --namespace $nsid --force --rw randrw --write \
            --prepare --verify $load
    done
    rate='--rate 200 --interrupt --size 4M --count 100 --qd 8 --json'
    run perf-rate nvio perf $a --raw $rate
    must nvio unbind $a >/dev/null
    for polled in 0 1; do
        [ $polled = 0 ] || poll_queues $a $polled
        for nsid in 1 3; do
            wait_for has_disk $a $nsid
            disk=$(disk_of $a $nsid)
            run perf-block.$nsid.$polled nvio perf --kernel "/dev/$disk" --verify $load
            generic=/dev/ng${disk#nvme}
            run perf-passthrough.$nsid.$polled nvio perf --kernel "$generic" --verify $load
            run perf-passthrough-large.$nsid.$polled nvio perf --kernel "$generic" --verify \
                --interrupt --bs 64k $load
        done
    done
    poll_queues $a 0
    wait_for has_disk $a 1
    run perf-rate-kernel nvio perf --kernel "/dev/$(disk_of $a 1)" $rate
}

kernel_driver nvme0n1 nvme1n1
modprobe vfio_iommu_type1
modprobe vfio-pci
run list-before nvio list --json
run list-text nvio list

device=$a
make lba512 "$(disk_of $a 1)"
make lba4096 "$(disk_of $a 3)"
run bind nvio bind $a
driver_of $a | section bind.driver
run bind-twice nvio bind $a
run list-bound nvio list --json
run identify nvio identify $a
run identify-json nvio identify $a --json
# What the libraries have to say counts here, too: nothing, when all is well.
run identify-loud env RUST_LOG=warn nvio identify $a
run smart nvio smart $a
run smart-json nvio smart $a --json
run ns nvio ns $a
run ns-json nvio ns $a --json
run log nvio log $a
run log-json nvio log $a --json
for page in error smart firmware changed-ns effects supported; do
    run log-$page nvio log $a $page
    run log-$page-json nvio log $a $page --json
done
run log-raw nvio log $a 2 --length 16
run log-unknown nvio log $a 0xc5
run reset nvio reset $a
run reset-json nvio reset $a --json
read_back lba512 1
# Once with ordinary pages, once with large ones for the DMA memory.
echo 64 >/proc/sys/vm/nr_hugepages
cat /proc/sys/vm/nr_hugepages | section hugepages
huge_limits
read_back lba4096 3
run no-namespace nvio ls $a / --namespace 2
run no-file nvio cat $a /no/such/file
run unbind nvio unbind $a
driver_of $a | section unbind.driver
wait_for has_disk $a 1
wait_for has_disk $a 3
sleep 0.3
mount_again lba512 "$(disk_of $a 1)"
mount_again lba4096 "$(disk_of $a 3)"
kernel_measures

# What bind must refuse, on device B.
device=$b
disk=$(disk_of $b 1)
echo "$disk" | section b.disk
printf 'label: gpt\n,300M,S\n,,L\n' >/tmp/table
must sh -c "sfdisk -q /dev/$disk </tmp/table >/dev/null"
must mkswap "/dev/${disk}p1" >/dev/null
make partition "${disk}p2"
must mount -t ext4 "/dev/${disk}p2" /mnt
run bind-mounted nvio bind $b
driver_of $b | section bind-mounted.driver
must umount /mnt
must swapon "/dev/${disk}p1"
run bind-swap nvio bind $b
must swapoff "/dev/${disk}p1"
must dmsetup create holder --table "0 2048 linear /dev/${disk}p2 0"
run bind-holder nvio bind $b
must dmsetup remove holder
driver_of $b | section bind-refused.driver
run bind-free nvio bind $b
driver_of $b | section bind-free.driver
run partition.ls nvio ls -lR --json $b / --partition 2
nvio cat $b /sizes/medium --partition 2 | sha256sum | section partition.cat.sizes/medium
run partition.maps nvio map --json $b $mapped --partition 2
run partition.cp nvio cp -r $b / /tmp/copy --partition 2
ext4-tree sums /tmp/copy /tmp/list.partition | section partition.copy-sums
rm -rf /tmp/copy
run partition-swap nvio ls $b / --partition 1
# Each way to write, in a part of the kernel's file of its own.
head -c 2000001 /dev/urandom >/tmp/input
at=1000001
for mode in direct buffered writethrough; do
    run write-$mode nvio write $b /large --partition 2 --$mode --sync --offset $at </tmp/input
    at=$((at + 3000000))
done
# A writer that is killed: the last 4 MiB.
at=$((12 << 20))
nvio cat $b /large --partition 2 --offset $at >/tmp/old
head -c 4194304 /dev/urandom >/tmp/new
for mode in buffered writethrough direct; do
    nvio write $b /large --partition 2 --$mode --offset $at </tmp/new &
    writer=$!
    sleep 0.1
    kill -9 $writer
    wait $writer
done
run partition-none nvio ls $b / --partition 7
run unbind-free nvio unbind $b
driver_of $b | section unbind-free.driver
for try in $(seq 100); do
    [ -b "/dev/${disk}p2" ] && break
    disk=$(disk_of $b 1)
    sleep 0.1
done
must mount -t ext4 -o ro,noatime "/dev/${disk}p2" /mnt
sha256sum </tmp/input | section write.sum
at=1000001
for mode in direct buffered writethrough; do
    tail -c +$((at + 1)) /mnt/large | head -c 2000001 | sha256sum | section write-$mode.sum
    at=$((at + 3000000))
done
tail -c +$(((12 << 20) + 1)) /mnt/large >/tmp/found
run killed ext4-tree torn /tmp/old /tmp/new /tmp/found
must umount /mnt
run write.e2fsck e2fsck -fn "/dev/${disk}p2"
run not-nvme-bind nvio bind 0000:00:00.0
run not-nvme nvio identify 0000:00:00.0
run not-there nvio identify 0000:00:1e.7
# Names that are equal but for case: hosts' kernels may not know of them, this one does.
# fold NAME OPTIONS COMPARE: of a filesystem that is populated with these options of mount. The seed of
# its hashes is fixed, because e2fsck 1.47.0 rejects a few of the trees that the kernel makes.
fold() {
    must truncate -s 64M "/tmp/$1.img"
    must mkfs.ext4 -q -F -b 1024 -O casefold,encrypt \
        -E hash_seed=6b1f2d4c-8f3e-4a57-9c1d-2e5a7b90c3d8 "/tmp/$1.img"
    must mount -t ext4 -o "loop,$2" "/tmp/$1.img" /mnt
    must ext4-tree fold /mnt
    must umount /mnt
    must mount -t ext4 -o loop,ro "/tmp/$1.img" /mnt
    run "$1" ext4-tree "$3" "/tmp/$1.img" /mnt
    must umount /mnt
}
for module in loop cts xts ecb sha512_generic; do
    modprobe "$module"
done
fold folded noatime fold-compare
run folded.e2fsck e2fsck -fn /tmp/folded.img
# Without e2fsck: it takes the nodes of these trees for damaged, as the kernel leaves room in them.
fold folded-encrypted test_dummy_encryption fold-compare-encrypted
dmesg | grep -i -e 'DMAR:.*fault' -e 'AER:' | section faults
