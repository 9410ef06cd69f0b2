//! Base address registers (PCI Local Bus 3.0, 6.2.5.1), and the parts of a BAR that can be mapped.

use nvio_spec::register::DOORBELLS;

use crate::error::{Error, Result};

/// Most bytes mapped for doorbells: enough for 65,535 queue pairs with a stride of 8 bytes.
const DOORBELL_BYTES_MAX: u64 = 1 << 20;

/// Returns the VFIO region of BAR `bar`, which is a field of CMBLOC.
pub(super) fn region(bar: u8) -> Result<u32> {
    match bar {
        0..=5 => Ok(u32::from(bar)),
        _ => Err(Error::invalid("CMBLOC", "BIR", bar)),
    }
}

/// Returns the error for a BAR without an address.
pub(super) fn unplaced(bar: u8) -> Error {
    Error::unsupported("a BAR without an address", format!("BAR {bar}"))
}

/// Returns the offset of a BAR in configuration space, bytes.
pub(super) fn offset(bar: u8) -> u64 {
    0x10 + 4 * u64::from(bar)
}

/// Returns true if the BAR is 64 bits wide, so that the next one is its upper half.
pub(super) fn is_wide(low: u32) -> bool {
    low & 0b110 == 0b100
}

/// Returns the address in a BAR, without its type bits.
pub(super) fn address(low: u32, high: u32) -> u64 {
    let high = if is_wide(low) { u64::from(high) << 32 } else { 0 };
    high | u64::from(low & !0xf)
}

/// Returns the number of bytes of BAR0 to map for doorbells, a multiple of 4096.
pub(super) fn doorbell_window(bar_size: u64) -> Result<usize> {
    let outside = Error::OutsideBar { offset: DOORBELLS, length: bar_size };
    let available = bar_size.checked_sub(DOORBELLS).filter(|&n| n >= 4096).ok_or(outside)?;
    Ok((available.min(DOORBELL_BYTES_MAX) & !4095) as usize)
}

/// Returns the length of the window that [`Transport::map_bar`](super::Transport::map_bar) maps in
/// a BAR of `size` bytes, of which only `areas` (offset and length) can be mapped.
pub(super) fn mappable(
    areas: impl IntoIterator<Item = (u64, u64)>,
    size: u64,
    offset: u64,
    bytes_max: u64,
) -> Result<usize> {
    let outside = Error::OutsideBar { offset, length: size };
    let mut ends = areas.into_iter().filter(|(start, _)| *start <= offset);
    let end = ends.find_map(|(start, length)| {
        Some(start.checked_add(length)?.min(size)).filter(|&end| end > offset)
    });
    let length = end.map(|end| (end - offset).min(bytes_max) & !4095).filter(|&length| length > 0);
    match length.and_then(|length| usize::try_from(length).ok()) {
        Some(length) if offset.is_multiple_of(4096) => Ok(length),
        _ => Err(outside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_whole_pages_of_a_mappable_area() {
        let all = |offset, most| mappable([(0, 10_000)], 10_000, offset, most).ok();
        assert_eq!(all(0, u64::MAX), Some(8192));
        assert_eq!(all(4096, 8192), Some(4096));
        assert_eq!(all(0, 4096), Some(4096));
        assert_eq!((all(8192, 4096), all(12_288, 4096), all(100, 4096)), (None, None, None));
        // All but a page in the middle, and an area whose end overflows.
        let areas = [(0, 8192), (12_288, 8192), (u64::MAX, 2)];
        let some = |offset| mappable(areas, 16_384, offset, u64::MAX).ok();
        assert_eq!([0, 4096, 8192, 12_288].map(some), [Some(8192), Some(4096), None, Some(4096)]);
        assert_eq!(some(!4095), None);
    }

    #[test]
    fn addresses_of_bars_are_without_their_type_bits() {
        assert_eq!(address(0xfe00_000c, 0x12), 0x12_fe00_0000);
        assert_eq!(address(0xfe00_0000, 0x12), 0xfe00_0000);
        assert!(region(6).is_err() && region(7).is_err());
        assert_eq!(offset(2), 0x18);
    }
}
