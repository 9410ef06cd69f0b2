//! Rows of filesystems that were copied while mounted: journals to replay, and orphans.

use std::fs::{self, File};
use std::io;

use super::super::contents::{
    changes, changes_through_a_small_journal, escaped, fast_commits, inline_changes, orphans,
    revoked, standard,
};
use super::super::{Made, Row, Step};
use nvio_testkit::image::{Loop, text, tool};

const STANDARD: Step = Step::Mounted("", standard);

pub const ROWS: &[Row] = &[
    Row::dirty("dirty_4k", 64, "-b 4096", &[STANDARD, Step::Dirty("", changes)]),
    Row::dirty("dirty_1k", 64, "-b 1024", &[STANDARD, Step::Dirty("", changes)]),
    Row::dirty("dirty_no_64bit", 64, "-b 1024 -O ^64bit", &[STANDARD, Step::Dirty("", changes)]),
    Row::dirty(
        "dirty_no_csum",
        64,
        "-b 4096 -O ^metadata_csum",
        &[STANDARD, Step::Dirty("", changes)],
    ),
    Row::dirty(
        "dirty_no_csum_no_64bit",
        64,
        "-b 2048 -O ^metadata_csum,^64bit",
        &[STANDARD, Step::Dirty("", changes)],
    ),
    Row::dirty(
        "dirty_journal_checksum_v1",
        64,
        "-b 4096 -O ^metadata_csum",
        &[STANDARD, Step::Dirty("journal_checksum", changes)],
    ),
    Row::dirty(
        "dirty_async_commit",
        64,
        "-b 4096",
        &[STANDARD, Step::Dirty("journal_async_commit,data=writeback", changes)],
    ),
    Row::dirty(
        "dirty_async_commit_no_csum",
        64,
        "-b 4096 -O ^metadata_csum,^64bit",
        &[STANDARD, Step::Dirty("journal_async_commit,data=writeback", changes)],
    ),
    Row::dirty(
        "dirty_data_journal",
        64,
        "-b 4096 -J size=16",
        &[STANDARD, Step::Dirty("data=journal", escaped)],
    ),
    Row::dirty(
        "dirty_data_journal_1k_no_csum",
        64,
        "-b 1024 -O ^metadata_csum,^64bit -J size=16",
        &[STANDARD, Step::Dirty("data=journal", escaped)],
    ),
    Row::dirty(
        "dirty_wrapped",
        64,
        "-b 1024 -J size=1",
        &[Step::Dirty("", changes_through_a_small_journal)],
    ),
    Row::dirty(
        "dirty_wrapped_no_csum",
        64,
        "-b 1024 -J size=1 -O ^metadata_csum,^64bit",
        &[Step::Dirty("", changes_through_a_small_journal)],
    ),
    Row::dirty("dirty_revoked", 64, "-b 1024", &[STANDARD, Step::Dirty("", revoked)]),
    Row::dirty(
        "dirty_revoked_data_journal",
        64,
        "-b 1024 -O ^64bit -J size=16",
        &[STANDARD, Step::Dirty("data=journal", revoked)],
    ),
    Row::dirty("dirty_ext3", 64, "-t ext3 -b 1024", &[Step::Dirty("", changes)]),
    Row::dirty("dirty_bigalloc", 96, "-b 4096 -C 16384 -O bigalloc", &[Step::Dirty("", changes)]),
    Row::dirty(
        "dirty_inline_data",
        64,
        "-b 4096 -O inline_data -J size=16",
        &[Step::Dirty("data=writeback", inline_changes)],
    ),
    Row::dirty("dirty_orphans", 64, "-b 4096", &[STANDARD, Step::Dirty("", orphans)]),
    Row::dirty(
        "dirty_orphan_file",
        64,
        "-b 4096 -O orphan_file",
        &[STANDARD, Step::Dirty("", orphans)],
    ),
    Row::dirty("dirty_orphans_ext3", 64, "-t ext3 -b 1024", &[Step::Dirty("", orphans)]),
    Row::dirty(
        "orphans_to_be_truncated",
        64,
        "-b 4096",
        &[STANDARD, Step::Image(orphan_that_stays)],
    ),
    Row::dirty(
        "dirty_fast_commit",
        64,
        "-b 4096 -O fast_commit",
        &[STANDARD, Step::Dirty("", fast_commits)],
    ),
    Row::dirty(
        "dirty_fast_commit_after_full_ones",
        64,
        "-b 4096 -O fast_commit",
        &[
            STANDARD,
            Step::Dirty("", |root| {
                changes(root)?;
                fast_commits(root)
            }),
        ],
    ),
    Row::dirty(
        "dirty_fast_commit_1k_no_csum",
        64,
        "-b 1024 -O fast_commit,^metadata_csum,^64bit",
        &[STANDARD, Step::Dirty("", fast_commits)],
    ),
    Row::dirty(
        "journal_csum_v2",
        64,
        "-b 4096",
        &[STANDARD, Step::Image(|made| journal_by_hand(made, "journal_open -c -v 2"))],
    ),
    Row::dirty(
        "journal_csum_v3",
        64,
        "-b 1024",
        &[STANDARD, Step::Image(|made| journal_by_hand(made, "journal_open -c -v 3"))],
    ),
    Row::dirty(
        "journal_tags_v1",
        64,
        "-b 1024 -O ^metadata_csum,^64bit",
        &[STANDARD, Step::Image(|made| journal_by_hand(made, "journal_open"))],
    ),
    Row::dirty("external_journal", 64, "-b 4096", &[Step::Image(external_journal)]),
    Row {
        mib: 64,
        ..Row::refused(
            "external_journal_missing",
            "-b 4096",
            &[Step::Image(external_journal), Step::Image(without_journal)],
            &["journal", "another device"],
        )
    },
];

/// Adds an inode with a name to the list of orphans, so that it is truncated.
fn orphan_that_stays(made: &Made) -> io::Result<()> {
    let number = String::from_utf8_lossy(&image_stat(made, "/sizes/medium")).into_owned();
    let number = number.split_whitespace().nth(1).expect("Inode: NUMBER").to_owned();
    made.debugfs(&[
        "set_inode_field /sizes/medium size 1000001",
        &format!("set_super_value last_orphan {number}"),
    ]);
    Ok(())
}

fn image_stat(made: &Made, path: &str) -> Vec<u8> {
    nvio_testkit::image::debugfs_bytes(&made.image(), &["-R", &format!("stat {path}")])
}

/// Writes transactions with debugfs that replace blocks of a file. One block begins with the magic
/// number of log blocks, and one is revoked by a later transaction.
fn journal_by_hand(made: &Made, open: &str) -> io::Result<()> {
    let stat = String::from_utf8_lossy(&image_stat(made, "/sizes/medium")).into_owned();
    let (_, extents) = stat.split_once("EXTENTS:\n").expect("extents");
    let (_, physical) = extents.split_once("):").expect("an extent");
    let digits: String = physical.chars().take_while(char::is_ascii_digit).collect();
    let first: u64 = digits.parse().expect("a block number");
    let block = nvio_testkit::image::block_size(&made.image())? as usize;
    let mut blocks = vec![b'r'; 5 * block];
    blocks[2 * block..2 * block + 4].copy_from_slice(&0xc03b_3998_u32.to_be_bytes());
    let path = made.path("blocks");
    fs::write(&path, &blocks)?;
    let written = format!("journal_write -b {}-{} {}", first + 2, first + 6, text(&path));
    let revoked = format!("journal_write -r {}", first + 3);
    let second = made.path("second");
    fs::write(&second, vec![b's'; block])?;
    let again = format!("journal_write -b {} {}", first + 5, text(&second));
    made.debugfs(&[open, &written, &revoked, &again, "journal_close"]);
    Ok(())
}

/// Creates a dirty filesystem with an external journal.
fn external_journal(made: &Made) -> io::Result<()> {
    let journal = made.path("disk.journal");
    File::create(&journal)?.set_len(16 << 20)?;
    tool("mke2fs", &["-q", "-F", "-b", "4096", "-O", "journal_dev", text(&journal)]);
    let device = Loop::new(&journal);
    made.mkfs(&["-J", &format!("device={}", device.device())]);
    made.copied(&format!("journal_path={}", device.device()), |root| {
        standard(root)?;
        changes(root)
    })
}

fn without_journal(made: &Made) -> io::Result<()> {
    fs::remove_file(made.path("disk.journal"))
}
