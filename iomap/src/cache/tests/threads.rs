//! Several threads on one file.

use super::*;

#[test]
fn threads_see_whole_blocks_of_each_other() {
    let mut rng = Rng::new(3);
    let (device, double) = mapped(&mut rng, 256, 256 * BLOCK);
    device.disk(|disk| disk.bytes.fill(0));
    // Far less memory than the file, so that folios come and go.
    let cache = device.cache(64 << 10);
    let file = CachedFile::new(&cache, double.clone());
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let mut file = file.clone();
            scope.spawn(move || {
                let mut rng = Rng::new(thread);
                for _ in 0..500 {
                    // Each thread writes its own blocks, and reads those of all.
                    let block = rng.range(0, 64) * 4 + thread;
                    let value = rng.range(1, 255) as u8;
                    let data = [value; BLOCK as usize];
                    match rng.range(0, 4) {
                        0 => file.write_at(block * BLOCK, &data[..]).unwrap(),
                        1 => through(&mut file, block * BLOCK, &data[..], false).unwrap(),
                        2 => {
                            let mut out = [0; BLOCK as usize];
                            let any = rng.range(0, 256) * BLOCK;
                            file.read_at(any, &mut out).unwrap();
                            assert!(out.iter().all(|&byte| byte == out[0]), "a torn block");
                            continue;
                        }
                        _ => {
                            file.sync_data().unwrap();
                            continue;
                        }
                    };
                    let mut out = [0; BLOCK as usize];
                    file.read_at(block * BLOCK, &mut out).unwrap();
                    assert_eq!(out, data);
                }
            });
        }
    });
    file.clone().sync_data().unwrap();
    assert!(cache.0.accounts.used() <= 64 << 10 && cache.0.accounts.dirty() == 0);
}
