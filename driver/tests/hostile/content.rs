//! Arbitrary data of a device, generated from few bytes.

use super::bytes::Bytes;

/// Most changes of one structure.
const MOST: usize = 32;

/// Changes `data`, the data of an honest device, as `bytes` determine.
pub fn make_up(data: &mut [u8], bytes: &mut Bytes<'_>) {
    let how = bytes.u8();
    match how & 7 {
        0 | 1 => return,
        2 => data.fill(bytes.u8()),
        3 => {
            // Equal numbers.
            let mut state = u32::from(bytes.u16()) | 1 << 16;
            for byte in data.iter_mut() {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                *byte = state as u8;
            }
        }
        4 => {
            // An ascending list of numbers, except for the changes.
            let (first, step) = (bytes.u32(), u32::from(bytes.u8()));
            for (word, at) in data.chunks_exact_mut(4).zip(0u32..) {
                word.copy_from_slice(&first.wrapping_add(at.wrapping_mul(step)).to_le_bytes());
            }
        }
        _ => {}
    }
    for _ in 0..usize::from(how >> 3).min(MOST) {
        let (at, len) = (usize::from(bytes.u16()), 1 + bytes.below(8));
        let at = at % data.len().max(1);
        for byte in data.iter_mut().skip(at).take(len) {
            *byte = bytes.u8();
        }
    }
}
