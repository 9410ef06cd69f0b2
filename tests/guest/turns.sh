# In the guest, with an IOMMU: nvio and the kernel take turns to change one filesystem. A copy of the files
# in memory gets the same changes. Before every other turn of nvio the kernel loses the device while the
# filesystem is mounted, so that nvio recovers it.
a=0000:00:10.0
kernel_driver nvme0n1
modprobe vfio_iommu_type1
modprobe vfio-pci
mkdir /tmp/model
disk=nvme0n1
must mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "/dev/$disk"
must mount -t ext4 "/dev/$disk" /mnt
for file in 0 1 2 3; do
    head -c 300000 /dev/urandom >/tmp/model/$file
    cp /tmp/model/$file /mnt/$file
done
must umount /mnt

# model_write FILE BLOCK: replaces blocks of 4 KiB of the copy from BLOCK on by standard input.
model_write() {
    must dd of="/tmp/model/$1" bs=4096 seek="$2" conv=notrunc 2>/dev/null
}

# sums TAG FOLDER: the checksums of the files.
sums() {
    (cd "$2" && sha256sum 0 1 2 3) | section "$1"
}

# nvios_turn ROUND: changes by nvio, of which each is durable when it ends.
nvios_turn() {
    round=$1
    must nvio bind $a >/dev/null
    head -c $((200000 + round * 7777)) /dev/urandom >/tmp/data
    run "write.$round" nvio write $a /0 --grow --offset $((round * 40960)) </tmp/data
    model_write 0 $((round * 10)) </tmp/data
    run "truncate.$round" nvio truncate -s $((100000 + round * 54321)) $a /1
    must truncate -s $((100000 + round * 54321)) /tmp/model/1
    run "punch.$round" nvio fallocate --punch-hole -o $((round * 8192)) -l 20480 $a /2
    head -c 20480 /dev/zero | model_write 2 $((round * 2))
    run "allocate.$round" nvio fallocate --keep-size -o 0 -l 2M $a /1
    run "zero.$round" nvio fallocate --zero-range -o $((round * 12288)) -l 40960 $a /3
    head -c 40960 /dev/zero | model_write 3 $((round * 3))
    run "collapse.$round" nvio fallocate --collapse-range -o 4096 -l 8192 $a /0
    { head -c 4096 /tmp/model/0; tail -c +12289 /tmp/model/0; } >/tmp/moved
    mv /tmp/moved /tmp/model/0
    run "insert.$round" nvio fallocate --insert-range -o 8192 -l 12288 $a /2
    { head -c 8192 /tmp/model/2; head -c 12288 /dev/zero; tail -c +8193 /tmp/model/2; } >/tmp/moved
    mv /tmp/moved /tmp/model/2
    run "setfattr.$round" nvio setfattr -n user.round -v "nvio $round" $a /3
    run "nvio.$round" nvio sha256 $a 0 1 2 3
    sums "nvio.$round.model" /tmp/model
    must nvio unbind $a >/dev/null
    wait_for has_disk $a 1
    disk=$(disk_of $a 1)
    run "nvio.$round.e2fsck" e2fsck -fn "/dev/$disk"
}

# kernels_turn ROUND: changes by the kernel.
kernels_turn() {
    round=$1
    must mount -t ext4 "/dev/$disk" /mnt
    sums "seen.$round" /mnt
    for file in 0 1 2 3; do
        head -c $((30000 * file + 5000)) /dev/urandom >/tmp/data
        must dd if=/tmp/data of=/mnt/$file bs=4096 seek=$((round * 5 + file)) conv=notrunc 2>/dev/null
        model_write $file $((round * 5 + file)) </tmp/data
    done
    must truncate -s 250000 /mnt/1
    must truncate -s 250000 /tmp/model/1
    must /bin/fallocate -p -o 16384 -l 32768 /mnt/2
    head -c 32768 /dev/zero | model_write 2 4
    sums "kernel.$round.model" /tmp/model
    sync
    # A mounted filesystem whose device is gone is like one that was not unmounted.
    [ $((round % 2)) = 0 ] || echo $a >/sys/bus/pci/drivers/nvme/unbind
    must umount /mnt
}

for round in $(seq "$(sed -n 's/.*nvio.turns=\([0-9]*\).*/\1/p' /proc/cmdline)"); do
    nvios_turn $round
    kernels_turn $round
    [ $((round % 2)) = 0 ] || echo $a >/sys/bus/pci/drivers/nvme/bind
    wait_for has_disk $a 1
    must nvio bind $a >/dev/null
    run "kernel.$round" nvio sha256 $a 0 1 2 3
    run "recover.$round" nvio recover --json $a
    run "stat.$round" nvio stat --json $a 3
    must nvio unbind $a >/dev/null
    wait_for has_disk $a 1
    disk=$(disk_of $a 1)
done
run e2fsck e2fsck -fn "/dev/$disk"
dmesg | grep -i -e 'DMAR:.*fault' -e 'AER:' | section faults
