# In the guest, with an IOMMU: random reads of one file of one device by nvio and by the kernel's
# io_uring, and of the device by NVMe passthrough. They take turns in each round, so that the host's
# noise meets them all, and the kernel polls. benches/kernel prints the ratios.
device=0000:00:10.0
load='--sweep qd=1,32,128 --rounds 1 --time 150ms --ramp 50ms --size 64M --cpus 1 --latency none --json'

kernel_driver nvme0n1
modprobe vfio_iommu_type1
modprobe vfio-pci
must mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 /dev/nvme0n1
must mount -t ext4 -o noatime /dev/nvme0n1 /mnt
must dd if=/dev/zero of=/mnt/file bs=1M count=64 conv=fsync 2>/dev/null
must umount /mnt
section clock </sys/devices/system/clocksource/clocksource0/current_clocksource
echo 1 >/sys/module/nvme/parameters/poll_queues
for round in $(seq 25); do
    must nvio bind $device >/dev/null
    run nvio.$round nvio perf $device /file $load
    must nvio unbind $device >/dev/null
    wait_for has_disk $device 1
    disk=$(disk_of $device 1)
    must mount -t ext4 -o ro,noatime "/dev/$disk" /mnt
    run file.$round nvio perf --kernel /mnt/file $load
    must umount /mnt
    run passthrough.$round nvio perf --kernel "/dev/ng${disk#nvme}" $load
done
