# In the guest, without an IOMMU: nvio says what to do.
a=0000:00:10.0
kernel_driver nvme0n1 nvme1n1
modprobe vfio_iommu_type1
modprobe vfio-pci
run bind nvio bind $a
basename "$(readlink -f "/sys/bus/pci/devices/$a/driver")" | section bind.driver
run ls nvio ls $a /
