//! The contents of blocks: zeroes, or a pattern that identifies the write and the block.

/// Contents of a buffer before a read. No block ever holds this byte in every place.
pub const POISON: u8 = 0xa5;

/// Returns a number that identifies a block by namespace and LBA.
pub fn place(nsid: u32, lba: u64) -> u64 {
    u64::from(nsid) << 48 | lba
}

fn word(value: u64, place: u64, index: u64) -> u64 {
    match index {
        0 => value,
        1 => place,
        _ => (value ^ place << 20).wrapping_add(index).wrapping_mul(0x9e37_79b9_7f4a_7c15),
    }
}

/// Fills a block with the pattern of the write `value`; 0 stands for zeroes.
pub fn fill(block: &mut [u8], value: u64, place: u64) {
    if value == 0 {
        return block.fill(0);
    }
    for (index, to) in block.as_chunks_mut().0.iter_mut().enumerate() {
        *to = word(value, place, index as u64).to_le_bytes();
    }
}

/// Returns the write whose pattern a block holds; `None` if it is a mixture, or the pattern of
/// another block.
pub fn identify(block: &[u8], place: u64) -> Option<u64> {
    let words = block.as_chunks().0;
    let value = u64::from_le_bytes(*words.first()?);
    if value == 0 {
        return block.iter().all(|&byte| byte == 0).then_some(0);
    }
    let same = |(index, bytes): (usize, &[u8; 8])| {
        u64::from_le_bytes(*bytes) == word(value, place, index as u64)
    };
    words.iter().enumerate().all(same).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_its_write_and_nothing_else_passes() {
        let mut block = vec![POISON; 512];
        assert_eq!(identify(&block, place(1, 7)), None);
        fill(&mut block, 42, place(1, 7));
        assert_eq!(identify(&block, place(1, 7)), Some(42));
        assert_eq!(identify(&block, place(1, 8)), None);
        let mut torn = block.clone();
        torn[504..].fill(0);
        assert_eq!(identify(&torn, place(1, 7)), None);
        fill(&mut block, 0, place(1, 7));
        assert_eq!(identify(&block, place(2, 9)), Some(0));
    }
}
