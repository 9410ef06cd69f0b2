//! The matrix: one test an image.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use nvio_tests::matrix::{check, rows};

macro_rules! rows {
    ($($name:ident)*) => {
        $(
            #[test]
            #[ignore = "needs root and loop devices: tests/run matrix"]
            fn $name() {
                check::check(rows::row(stringify!($name)));
            }
        )*

        #[test]
        fn each_row_is_a_test() {
            let here: Vec<&str> = vec![$(stringify!($name)),*];
            let rows: Vec<&str> = rows::ROWS.iter().map(|row| row.name).collect();
            assert_eq!(here, rows);
        }
    };
}

rows! {
    block_1k
    block_2k
    block_4k
    block_8k
    block_16k
    block_32k
    block_64k
    block_64k_no_csum
    inode_128
    inode_128_1k_no_64bit
    inode_512
    inode_1024
    inode_4096
    no_64bit
    no_64bit_1k
    no_metadata_csum
    no_metadata_csum_no_64bit_2k
    no_flex_bg
    no_flex_bg_1k_inode_128
    meta_bg
    meta_bg_no_64bit
    sparse_super2
    uninit_bg
    uninit_bg_no_64bit
    csum_seed
    many_groups_1k
    no_journal
    no_filetype
    no_dir_index
    ext2_1k
    ext2_4k
    ext2_rev0
    ext3_1k
    ext3_4k
}
