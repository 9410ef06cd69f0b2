//! The cache against a model, over an image in memory.

use nvio_testkit::random::Rng;

use super::*;
use crate::contract::mapper::{Mapper, Mapping, Op};
use crate::contract::open_file::{FileRef, OpenFile};
use crate::{Error, ImageQueue};

struct NoState;

impl OpenFile for NoState {
    type Error = Error;
}

/// A file of whole extents of 16 KiB, in the opposite order on the device.
struct Backwards {
    file: FileRef<NoState>,
    size: u64,
}

const EXTENT: u64 = 16 << 10;
const SIZE: u64 = 1 << 20;

impl Mapper for Backwards {
    type OpenFile = NoState;

    fn open_file(&self) -> &FileRef<NoState> {
        &self.file
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u32 {
        1024
    }

    fn begin(&mut self, pos: u64, _length: u64, _op: Op) -> Result<Mapping, Error> {
        let index = pos / EXTENT;
        Ok(Mapping::mapped(index * EXTENT, EXTENT, (SIZE / EXTENT - 1 - index) * EXTENT))
    }
}

#[test]
fn a_cached_file_is_a_vector_of_bytes() {
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let limit = [64 << 10, 256 << 10, 4 << 20][seed as usize % 3];
        let image: Vec<u8> = rng.bytes(SIZE);
        let size = SIZE - 1000;
        let mut model: Vec<u8> = (0..SIZE / EXTENT)
            .rev()
            .flat_map(|index| image[(index * EXTENT) as usize..][..EXTENT as usize].to_vec())
            .collect();
        model.truncate(size as usize);
        let cache = PageCache::new(ImageQueue::new(image, 16).unwrap(), limit);
        let mut file = CachedFile::new(&cache, Backwards { file: FileRef::new(NoState), size });
        for step in 0..500 {
            let pos = rng.range(0, size) as usize;
            let most = (size as usize - pos).min(1 << rng.range(0, 18));
            let len = rng.range(1, most as u64 + 1) as usize;
            match rng.range(0, 5) {
                0 | 1 => {
                    let mut out = vec![0; len];
                    assert_eq!(file.read_at(pos as u64, &mut out).unwrap(), len);
                    assert!(out == model[pos..pos + len], "seed {seed}, step {step}: {pos} {len}");
                }
                2 | 3 => {
                    let data = rng.bytes(len as u64);
                    assert_eq!(file.write_at(pos as u64, &data[..]).unwrap(), len);
                    model[pos..pos + len].copy_from_slice(&data);
                }
                _ => file.sync_data().unwrap(),
            }
            assert!(cache.0.accounts.used() <= limit);
        }
    }
}
