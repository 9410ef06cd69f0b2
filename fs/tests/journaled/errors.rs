//! Devices that fail, and filesystems that are refused.

use nvio_ext4::{Error, Filesystem, JournaledFilesystem, NotWritable, Options};

use super::recorder::Recorder;
use super::{VARIANTS, file, image, open};
use crate::common::debugfs;

#[test]
fn a_failed_write_ends_all_changes() {
    let dir = tempfile::tempdir().unwrap();
    let base = image(dir.path(), VARIANTS[2].1);
    for calls in 0..2 {
        let device = Recorder::new(base.clone());
        let fs = open(&device);
        let number = file(&fs, 0).number();
        fs.set_owner(number, Some(1), None).unwrap();
        fs.sync().unwrap();
        fs.set_owner(number, Some(2), None).unwrap();
        device.fail_after(calls);
        assert!(matches!(fs.sync(), Err(Error::Sink { .. })), "{calls}");
        assert!(matches!(fs.sync(), Err(Error::JournalAborted)), "{calls}");
        assert!(matches!(fs.sync_inode(number), Err(Error::JournalAborted)), "{calls}");
        let error = fs.set_owner(number, Some(3), None).unwrap_err();
        assert!(matches!(error, Error::JournalAborted), "{calls}");
        assert!(fs.close().is_err(), "{calls}");
        let found = Filesystem::open(device.bytes()).unwrap();
        assert_eq!(found.inode(number).unwrap().uid(), 1, "{calls}: the durable change is there");
    }
}

#[test]
fn a_checkpoint_that_fails_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let base = image(dir.path(), VARIANTS[0].1);
    let mut failed = 0;
    // Cuts at each call of the checkpoint that the 340th sync makes.
    for calls in 0..8 {
        let device = Recorder::new(base.clone());
        let fs = open(&device);
        let number = file(&fs, 0).number();
        let mut durable = 0;
        for round in 1..400 {
            if round == 340 {
                device.fail_after(calls);
            }
            fs.set_owner(number, Some(round), None).unwrap_or_else(|_| fs.inode(number).unwrap());
            match fs.sync() {
                Ok(()) => durable = round,
                Err(_) => break,
            }
        }
        failed += u32::from(durable < 399);
        let found = Filesystem::open(device.bytes()).unwrap();
        let uid = found.inode(number).unwrap().uid();
        assert!(uid == durable || uid == durable + 1, "{calls}: {uid} after {durable}");
    }
    assert!(failed >= 7, "{failed}");
}

#[test]
fn filesystems_that_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |options: &str, lines: &[&str]| {
        let path = dir.path().join("image");
        std::fs::write(&path, image(dir.path(), options)).unwrap();
        if !lines.is_empty() {
            debugfs(&path, lines);
        }
        let device = Recorder::new(std::fs::read(&path).unwrap());
        let error = JournaledFilesystem::open(device.clone(), Options::default()).unwrap_err();
        assert_eq!(device.calls(), 0, "nothing was written: {error}");
        match error {
            Error::NotWritable(why) => why,
            error => panic!("{error}"),
        }
    };
    let ext4 = "-t ext4 -b 1024";
    assert_eq!(refused("-t ext4 -b 1024 -O ^has_journal", &[]), NotWritable::NoJournal);
    for feature in ["inline_data", "ea_inode", "encrypt", "casefold"] {
        let why = refused(&format!("{ext4} -O {feature}"), &[]);
        assert!(why.to_string().contains(feature), "{why}");
    }
    for feature in ["quota", "bigalloc", "verity"] {
        let why = refused(&format!("{ext4} -O {feature}"), &[]);
        assert!(why.to_string().contains(feature), "{why}");
    }
    assert_eq!(refused(ext4, &["set_super_value state 3"]), NotWritable::HasErrors);
    assert_eq!(refused(ext4, &["set_super_value state 0"]), NotWritable::NotClean);
    // A directory that is to be truncated.
    let directory = ["set_super_value last_orphan 11"];
    assert_eq!(refused(ext4, &directory), NotWritable::HasOrphans);
    let journals_data = refused(ext4, &["set_super_value default_mount_opts 0x2c"]);
    assert_eq!(journals_data, NotWritable::JournalsData);
    let why = refused(ext4, &["set_super_value feature_ro_compat 0x1000"]);
    assert!(why.to_string().contains("read-only"), "{why}");
}

#[test]
fn a_failure_at_each_call_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let base = image(dir.path(), VARIANTS[0].1);
    // The number of calls of the whole workload, without failures.
    let device = Recorder::new(base.clone());
    let (_, durable) = work(&device);
    assert_eq!(durable, 6);
    let calls = device.calls();
    let mut stopped = [0; 7];
    for fails_after in 0..=calls {
        let device = Recorder::new(base.clone());
        device.fail_after(fails_after);
        let (failed, durable) = work(&device);
        assert!(failed || fails_after == calls, "{fails_after}");
        stopped[durable] += 1;
        // The device works again.
        let again = Recorder::new(device.bytes());
        let fs = open(&again);
        for at in 0..durable {
            let size = fs.lookup(format!("/file-{at}")).unwrap().size();
            assert_eq!(size, 5000 + at as u64, "{fails_after}");
        }
        fs.close().unwrap();
        super::check(dir.path(), &again.bytes());
    }
    assert!(stopped.iter().all(|&times| times > 0), "{stopped:?}");
}

/// Writes to six files, each made durable. Returns true if a call failed, and the number of files
/// whose data was acknowledged as durable.
fn work(device: &Recorder) -> (bool, usize) {
    let Ok(fs) = JournaledFilesystem::open(device.clone(), Options::default()) else {
        return (true, 0);
    };
    let mut durable = 0;
    for at in 0..6 {
        let number = file(&fs, at).number();
        let written = fs.truncate(number, 0).and_then(|_| {
            fs.write_at(number, 0, &vec![at as u8; 5000 + at])?;
            fs.sync_inode(number)
        });
        if written.is_err() {
            return (true, durable);
        }
        durable += 1;
    }
    (fs.close().is_err(), durable)
}
