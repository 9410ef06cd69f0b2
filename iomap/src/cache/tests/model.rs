//! Random sequences against a vector of bytes.

use super::*;

/// Plays `steps` calls on a file, and compares each result and the device at the end.
fn play(seed: u64, allocates: bool, limit: usize) {
    let mut rng = Rng::new(seed);
    let blocks = 512;
    let size = blocks * BLOCK - rng.range(0, BLOCK);
    let (device, double) = mapped(&mut rng, blocks, size);
    if allocates {
        double.record(|record| {
            for block in &mut record.blocks {
                match rng.range(0, 4) {
                    0 => *block = Block::Hole,
                    1 => {
                        if let Block::Mapped(addr) = *block {
                            *block = Block::Unwritten(addr);
                        }
                    }
                    _ => {}
                }
            }
        });
    }
    let mut model = device.disk(|disk| double.on_device(&disk.bytes));
    let cache = device.cache(limit);
    let mut files = vec![CachedFile::new(&cache, double.clone())];
    files.push(files[0].clone());
    for step in 0..300 {
        let (size, file) = (model.len(), &mut files[step % 2]);
        let grow: u64 = if allocates && size < 2 << 20 { 16 << 10 } else { 0 };
        let pos = rng.range(0, size as u64 + grow.min(2 << 10)) as usize;
        let most = ((size + grow as usize).saturating_sub(pos)).max(1).min(1 << rng.range(0, 18));
        let len = rng.range(1, most as u64 + 1) as usize;
        let at = format!("seed {seed}, step {step}: {pos} + {len} of {size}");
        match rng.range(0, if allocates { 11 } else { 10 }) {
            0..3 => {
                let mut out = vec![0; len];
                let n = file.read_at(pos as u64, &mut out).unwrap();
                assert_eq!(n, len.min(size.saturating_sub(pos)), "{at}");
                let differs =
                    out[..n].iter().zip(&model[pos.min(size)..]).position(|(a, b)| a != b);
                let block = differs.map(|at| (pos + at) / BLOCK as usize);
                let block = block.map(|at| double.record(|record| record.blocks[at]));
                assert!(differs.is_none(), "{at}: byte {differs:?} of block {block:?}");
            }
            3..8 => {
                let data = rng.bytes(len as u64);
                let n = match rng.range(0, 3) {
                    0 => file.write_at(pos as u64, &data[..]),
                    1 => through(file, pos as u64, &data[..], false),
                    _ => through(file, pos as u64, &data[..], true),
                };
                assert_eq!(n.unwrap(), len, "{at}");
                model.resize(size.max(pos + len), 0);
                model[pos..pos + len].copy_from_slice(&data);
            }
            8 => {
                let range = pos.min(size)..(pos + len).min(size);
                file.zero_range(pos as u64..(pos + len) as u64).unwrap();
                model[range].fill(0);
            }
            10 => {
                let new = if rng.range(0, 2) == 0 { pos } else { pos + len };
                file.truncate(new as u64, || double.truncate(new as u64)).unwrap();
                model.resize(new, 0);
            }
            _ if rng.range(0, 2) == 0 => {
                assert!(file.invalidate(pos as u64..(pos + len) as u64), "{at}");
            }
            _ => file.sync_data().unwrap(),
        }
        assert!(cache.0.accounts.used() <= limit, "{at}");
        assert_eq!(files[0].size(), model.len() as u64, "{at}");
    }
    files[0].sync_data().unwrap();
    let found = device.disk(|disk| double.on_device(&disk.bytes));
    assert_eq!(found.len(), model.len(), "seed {seed}");
    let differs = found.iter().zip(&model).position(|(found, wanted)| found != wanted);
    assert_eq!(differs, None, "seed {seed}: the device differs");
    assert_eq!(cache.0.accounts.dirty(), 0, "seed {seed}");
    assert!(files[0].cache_for_tests().state.dirty.all().is_empty(), "seed {seed}");
    double.assert_balanced();
}

#[test]
fn a_file_of_mapped_blocks_is_a_vector_of_bytes() {
    for seed in 0..30 {
        play(seed, false, [96 << 10, 256 << 10, 4 << 20][seed as usize % 3]);
    }
}

#[test]
fn a_file_that_grows_is_a_vector_of_bytes() {
    for seed in 0..30 {
        play(seed, true, [96 << 10, 256 << 10, 4 << 20][seed as usize % 3]);
    }
}
