# In the guest, with an IOMMU and no kernel driver in the way: the test program `nvme-check` on
# controllers that each have something special (tests/src/guest/machine.rs).
plain=0000:00:10.0
cmb=0000:00:11.0
pi=0000:00:12.0
faulty=0000:00:13.0
asked_back=0000:01:00.0
pulled=0000:02:00.0

modprobe vfio_iommu_type1
modprobe vfio-pci
for address in $plain $cmb $pi $faulty $asked_back $pulled; do
    must nvio bind $address
done >&2
# Nothing here has large pages.
cat /proc/sys/vm/nr_hugepages | section hugepages
run list nvio list
run list-json nvio list --json
# A driver at work, and who else looks.
mkfifo /tmp/until
nvme-check busy=$plain </tmp/until >/tmp/busy &
exec 9>/tmp/until
until grep -q ^busy /tmp/busy; do sleep 0.1; done
run list-busy nvio list --json
run open-busy nvio identify $plain
exec 9>&-
wait $!

# Users who lack something. The files of VFIO say who may use a device.
group=/dev/vfio/$(basename "$(readlink -f /sys/bus/pci/devices/$plain/iommu_group)")
echo "$group" | section group
run user-without-permission su user -c "nvio identify $plain"
run user-list su user -c "nvio list --json"
chown user "$group"
run user-locks-64k su user -c "ulimit -l 64; nvio identify $plain"
run user-locks-8m su user -c "ulimit -l 8192; nvio identify --json $plain"
chmod 600 /dev/vfio/vfio
run user-without-container su user -c "nvio identify $plain"
chmod 666 /dev/vfio/vfio
mount -t tmpfs none /dev/vfio
run without-vfio nvio identify $plain
umount /dev/vfio

for role in plain cmb pi faulty; do
    eval address=\$$role
    run $role nvme-check $role=$address
done
run idle nvme-check idle=$cmb
# Two ways to lose a device: its slot's button is pressed, which is QEMU's device_del, and the
# kernel asks for it; or its slot loses power, and it is gone.
export NVME_CHECK_REMOVE='echo host device_del asked-back >/dev/ttyS1'
run asked-back nvme-check asked-back=$asked_back
export NVME_CHECK_REMOVE='sh /pull.sh 0000:00:15.0 0000:02:00.0'
run pulled nvme-check pulled=$pulled
dmesg | grep -i -e 'DMAR:.*fault' -e 'AER:.*error' | section faults
