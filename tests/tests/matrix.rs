//! The matrix: one test an image.

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
            let rows: Vec<&str> = rows::rows().map(|row| row.name).collect();
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
    flex_bg_large
    meta_bg
    meta_bg_no_64bit
    first_meta_bg
    sparse_super2
    no_sparse_super
    uninit_bg
    uninit_bg_no_64bit
    csum_seed
    csum_seed_new_uuid
    many_groups_1k
    block_numbers_of_48_bits
    tables_never_initialised
    tables_never_initialised_uninit_bg
    grown
    shrunk
    converted_to_64bit
    converted_to_metadata_csum
    converted_from_inode_128
    bigalloc
    bigalloc_1k
    extents_depth_3
    extents_depth_5
    extents_depth_5_no_csum
    logical_block_2_32_less_2
    logical_block_2_32_less_2_1k
    huge_file
    ext2_1k
    ext2_4k
    ext3_1k
    ext3_2k
    ext3_4k
    ext4_without_extents
    pointers_and_extents
    inline_data
    inline_data_inode_1024
    inline_data_1k_no_csum
    inline_data_of_a_folder
    htree_legacy_signed
    htree_legacy_unsigned
    htree_half_md4_signed
    htree_half_md4_unsigned
    htree_tea_signed
    htree_tea_unsigned
    htree_no_csum_no_filetype
    no_filetype
    no_dir_index
    entries_60_000
    large_dir_of_three_levels
    subdirectories_65_000
    casefold
    encrypted
    encrypt_without_encrypted_files
    ea_inode
    ea_inode_1k_inode_128
    ea_inode_no_csum
    projects_and_quota
    journal_data_flag
    no_xattrs
    dirty_4k
    dirty_1k
    dirty_no_64bit
    dirty_no_csum
    dirty_no_csum_no_64bit
    dirty_journal_checksum_v1
    dirty_async_commit
    dirty_async_commit_no_csum
    dirty_data_journal
    dirty_data_journal_1k_no_csum
    dirty_wrapped
    dirty_wrapped_no_csum
    dirty_revoked
    dirty_revoked_data_journal
    dirty_ext3
    dirty_bigalloc
    dirty_inline_data
    dirty_orphans
    dirty_orphan_file
    dirty_orphans_ext3
    orphans_to_be_truncated
    dirty_fast_commit
    dirty_fast_commit_after_full_ones
    dirty_fast_commit_1k_no_csum
    journal_csum_v2
    journal_csum_v3
    journal_tags_v1
    external_journal
    external_journal_missing
    unknown_incompat
    unknown_ro_compat
    unknown_compat
    compression
    journal_device
    mmp_clean
    mmp_active
    mmp_fsck
    many_features
    few_features
    no_large_file_no_huge_file
    revision_0
    no_journal
    read_only
    verity
}
