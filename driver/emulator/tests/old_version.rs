//! Reads that return an old version of a block.

use crate::stepped;

use nvio_emulator::{Backing, Config, Fault, Faults, NamespaceConfig, Rule};
use nvio_spec::Sqe;
use nvio_spec::opcode::nvm;
use stepped::{DATA, Pair, Stepped, with_data};

const META: u64 = DATA + 0x1_0000;

fn host(metadata: u16, extended: bool, faults: Faults) -> (Stepped, Pair) {
    let namespace = NamespaceConfig::new(Backing::memory(1 << 20)).metadata(metadata, extended);
    let mut host = Stepped::new(&Config::new().namespace(namespace).faults(faults));
    let pair = host.create(1, 16);
    (host, pair)
}

fn run(host: &mut Stepped, pair: &mut Pair, sqe: Sqe) {
    let sqe = Sqe { mptr: META.into(), ..with_data(sqe, DATA, 0) };
    assert!(host.run(pair, sqe).status().is_success());
}

/// The third write of an I/O command leaves the block before it to one read.
#[test]
fn the_next_read_returns_the_block_before_the_write() {
    for (metadata, extended) in [(0, false), (8, true), (8, false)] {
        let faults = Faults::new().rule(Rule::new(Fault::OldVersion).opcode(nvm::WRITE).nth(3));
        let (mut host, mut pair) = host(metadata, extended, faults);
        let interleaved = if extended { usize::from(metadata) } else { 0 };
        let (block, separate) = (512 + interleaved, usize::from(metadata) - interleaved);
        let mut write = |host: &mut Stepped, value: u8, lba, count: u32| {
            host.write(DATA, &vec![value; block * count as usize]);
            host.write(META, &vec![value; separate * count as usize]);
            run(host, &mut pair, Sqe::write(1, lba, count));
        };
        write(&mut host, 1, 10, 4);
        write(&mut host, 2, 12, 1);
        write(&mut host, 3, 11, 2);
        let mut read = |host: &mut Stepped| {
            host.write(DATA, &vec![0xee; block * 5]);
            host.write(META, &vec![0xee; separate * 5]);
            run(host, &mut pair, Sqe::read(1, 10, 4));
            let (data, metadata) = (host.read(DATA, block * 5), host.read(META, separate * 5));
            let mut values = Vec::new();
            for at in 0..5 {
                let mut bytes = data[at * block..][..block].to_vec();
                bytes.extend(&metadata[at * separate..][..separate]);
                assert!(bytes.iter().all(|&byte| byte == bytes[0]), "a whole block, {at}");
                values.push(bytes[0]);
            }
            values
        };
        // Only the first block of the write, only once, and nothing past the read.
        assert_eq!(read(&mut host), [1, 1, 3, 1, 0xee], "{metadata} {extended}");
        assert_eq!(read(&mut host), [1, 3, 3, 1, 0xee], "{metadata} {extended}");
        assert_eq!(host.controller.fault_counts().old_version, 1);
    }
}

#[test]
fn other_commands_and_failed_writes_keep_nothing() {
    let (mut host, mut pair) = host(0, false, Faults::new().rule(Rule::new(Fault::OldVersion)));
    run(&mut host, &mut pair, Sqe::read(1, 0, 1));
    run(&mut host, &mut pair, Sqe::flush(1));
    let past = with_data(Sqe::write(1, 1 << 40, 1), DATA, 0);
    assert!(!host.run(&mut pair, past).status().is_success());
    run(&mut host, &mut pair, Sqe::read(1, 0, 8));
    assert_eq!(host.controller.fault_counts().old_version, 0);
}
