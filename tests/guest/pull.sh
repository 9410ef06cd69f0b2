#!/bin/sh
# pull.sh PORT DEVICE: takes the power from a hot-plug port. The device behind it is gone at once,
# before the kernel hears of it; and then the kernel is told. (QEMU sends no interrupt for this.)
# The kernel waits until the device is closed.
config=/sys/bus/pci/devices/$1/config
byte() {
    od -A n -t u1 -j "$1" -N 1 "$config" | tr -d ' '
}
# The capability with ID 10h, which has the Slot Control register at 18h (PCIe 7.5.3).
at=$(byte 52)
while [ "$(byte "$at")" != 16 ]; do
    at=$(byte $((at + 1)))
done
# Power controller off, power indicator off, the rest as it is.
high=$(($(byte $((at + 25))) | 7))
printf "\\$(printf %o $high)" |
    dd of="$config" bs=1 seek=$((at + 25)) conv=notrunc 2>/dev/null
echo 1 >"/sys/bus/pci/devices/$2/remove" &
